import { UsageError } from '@cqil/core';
import type { SessionOptions } from '@cqil/runtime-gpu';
import type { QuantiseMethod, QuantiseOptions } from './types.js';

/** The options with what is taken where they are absent. */
export interface Settings {
  readonly bits: 4 | 8;
  readonly blockSize: number;
  readonly method: QuantiseMethod;
  /** `[batches][batch][tokens]`, all windows of one length in a batch. */
  readonly batches: readonly (readonly (readonly number[])[])[];
  readonly finerShare: number;
  readonly development: QuantiseOptions['development'] | undefined;
  readonly embeddingBits: 4 | 8 | 'float';
  readonly accuracyLevel: 1 | 4;
  readonly damping: number;
  readonly session: SessionOptions | undefined;
  readonly signal: AbortSignal | undefined;
}

/** @throws UsageError `QUANTISE_OPTIONS`, `QUANTISE_TEXT` where `gptq` has no text */
export function settingsOf(options: QuantiseOptions): Settings {
  const { calibration = [], batchTokens = 4096 } = options;
  const method = options.method ?? (calibration.length > 0 ? 'gptq' : 'rtn');
  const blockSize = options.blockSize ?? 32;
  const finerShare = options.finerShare ?? 0;
  const damping = options.damping ?? 0.01;
  const check = (holds: boolean, name: string, expected: string, found: unknown) => {
    if (holds) return;
    throw new UsageError('QUANTISE_OPTIONS', `The option "${name}" makes no sense.`, {
      expected,
      found: String(found),
    });
  };
  const powerOfTwo = blockSize >= 16 && Number.isInteger(Math.log2(blockSize));
  check(powerOfTwo, 'blockSize', 'a power of two from 16', blockSize);
  check(finerShare >= 0 && finerShare <= 1, 'finerShare', 'a number from 0 to 1', finerShare);
  check(damping > 0 && damping < Number.POSITIVE_INFINITY, 'damping', 'a number above 0', damping);
  if (method === 'gptq' && calibration.length === 0) {
    throw new UsageError('QUANTISE_TEXT', 'There is no text to calibrate with.', {
      expected: 'text of the kinds that the model is for, or the method "rtn"',
      found: 'none',
    });
  }
  return {
    bits: options.bits ?? 4,
    blockSize,
    method,
    batches: batchesOf(calibration, batchTokens),
    finerShare,
    development: options.development,
    embeddingBits: options.embeddingBits ?? 8,
    accuracyLevel: options.accuracyLevel ?? 4,
    damping,
    session: options.session,
    signal: options.signal,
  };
}

/** Windows of one length in a row, as many as have no more tokens than given: `[batches][batch][tokens]`. */
export function batchesOf(windows: readonly (readonly number[])[], tokens: number): (readonly number[])[][] {
  const batches: (readonly number[])[][] = [];
  for (const ids of windows) {
    const last = batches.at(-1);
    const length = last?.[0]?.length;
    if (last !== undefined && length === ids.length && (last.length + 1) * length <= tokens) last.push(ids);
    else batches.push([ids]);
  }
  return batches;
}
