import type { ModelSource } from '../source/index.js';
import { quantise } from './quantise.js';
import type { QuantisedMatrix, QuantiseMethod, QuantiseOptions, UnquantisedMatrix } from './types.js';
import {
  interleaved,
  type QuantisedFolder,
  type QuantisedFolderOptions,
  type QuantisedFolderRecord,
  writeQuantised,
} from './write-quantised.js';

export interface QuantiseModelOptions
  extends Omit<QuantiseOptions, 'calibration' | 'development'>,
    QuantisedFolderOptions {}

/** What the folder says about itself in `cqil.quantise.json`. */
export interface QuantiseRecord extends QuantisedFolderRecord {
  readonly version: 1;
  readonly format: 'blocks';
  readonly bits: 4 | 8;
  readonly method: QuantiseMethod;
  readonly matrices: readonly QuantisedMatrix[];
  readonly left: readonly UnquantisedMatrix[];
}

export interface QuantisedModel extends QuantiseRecord, QuantisedFolder {}

/**
 * Quantises a model on disk into a folder of its own, laid out as the source is, its graph under the name of its new
 * dtype (`model_q4.onnx`, `model_q4f16.onnx`, `model_quantized.onnx`), which the config names, too: Transformers.js loads
 * it without being told. A plan that the source was rewritten by stays with it. What was done is written beside, as
 * `cqil.quantise.json`. The folder appears at once, complete and loaded once, or not at all.
 *
 * @throws UsageError `OUTPUT_NOT_EMPTY`, `OUTPUT_IS_SOURCE`; what `quantise`, `openTextSets` and `loadTokenizer` throw;
 *   VerificationError `QUANTISE_BROKEN`; EnvironmentError `WRITE_FAILED`; the signal's reason
 */
export async function quantiseModel(
  source: ModelSource,
  outDir: string,
  options: QuantiseModelOptions = {},
): Promise<QuantisedModel> {
  const { bits = 4 } = options;
  return writeQuantised(
    source,
    outDir,
    options,
    async (original) => async (texts) => {
      const { model, method, matrices, left } = await quantise(original, {
        ...options,
        ...(texts === undefined ? {} : { calibration: interleaved(texts), development: texts.development }),
      });
      return { model, bits, record: { version: 1, format: 'blocks', bits, method, matrices, left } as const };
    },
    {
      needsText: options.method !== 'rtn',
      hint: 'Try another block size, or `embeddingBits: "float"`.',
    },
  );
}
