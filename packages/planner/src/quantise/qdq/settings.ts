import { UsageError } from '@cqil/core';
import type { SessionOptions } from '@cqil/runtime-gpu';
import { batchesOf } from '../settings.js';
import type { CodeBits } from './codes.js';
import { STEP_RULES, type StepRule } from './steps.js';
import type { QdqOptions } from './types.js';

/** The options with what is taken where they are absent. */
export interface QdqSettings {
  readonly batchTokens: number;
  readonly inputBits: CodeBits | 'auto';
  readonly inputTolerance: number;
  readonly stepRule: StepRule;
  readonly residualBits: CodeBits;
  readonly residualTolerance: number;
  readonly rotate: 'auto' | 'off';
  readonly session: SessionOptions | undefined;
  readonly signal: AbortSignal | undefined;
}

/** @throws UsageError `QUANTISE_OPTIONS` */
export function qdqSettings(options: Omit<QdqOptions, 'calibration'>): QdqSettings {
  const { inputBits = 'auto', inputTolerance = 0.002, stepRule = 'error' } = options;
  const { residualBits = 16, residualTolerance = 0.0001, rotate = 'auto', batchTokens = 1024 } = options;
  const check = (holds: boolean, name: string, expected: string, found: unknown) => {
    if (holds) return;
    throw new UsageError('QUANTISE_OPTIONS', `The option "${name}" makes no sense.`, {
      expected,
      found: String(found),
    });
  };
  check(['auto', 8, 16].includes(inputBits), 'inputBits', '8, 16 or "auto"', inputBits);
  check([8, 16].includes(residualBits), 'residualBits', '8 or 16', residualBits);
  check(STEP_RULES.includes(stepRule), 'stepRule', STEP_RULES.join(', '), stepRule);
  check(inputTolerance >= 0, 'inputTolerance', 'a number of 0 or more', inputTolerance);
  check(residualTolerance >= 0, 'residualTolerance', 'a number of 0 or more', residualTolerance);
  check(['auto', 'off'].includes(rotate), 'rotate', '"auto" or "off"', rotate);
  check(batchTokens >= 1, 'batchTokens', 'a number of 1 or more', batchTokens);
  return {
    batchTokens,
    inputBits,
    inputTolerance,
    stepRule,
    residualBits,
    residualTolerance,
    rotate,
    session: options.session,
    signal: options.signal,
  };
}

/**
 * Windows as they are run, `[batches][batch][tokens]`.
 *
 * @throws UsageError `QUANTISE_TEXT` without text
 */
export function calibrationBatches(
  { calibration }: Pick<QdqOptions, 'calibration'>,
  { batchTokens }: QdqSettings,
): (readonly number[])[][] {
  if (calibration.length === 0) {
    throw new UsageError('QUANTISE_TEXT', 'There is no text to calibrate with.', {
      expected: 'text of the kinds that the model is for: the steps of what it computes are fixed by it',
      found: 'none',
    });
  }
  return batchesOf(calibration, batchTokens);
}
