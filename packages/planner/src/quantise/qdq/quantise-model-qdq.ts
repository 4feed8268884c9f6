import type { ModelSource } from '../../source/index.js';
import {
  interleaved,
  type QuantisedFolder,
  type QuantisedFolderOptions,
  type QuantisedFolderRecord,
  writeQuantised,
} from '../write-quantised.js';
import { prepareQdq, quantisePrepared } from './qdq.js';
import type { QdqOptions, QdqResult } from './types.js';

export interface QuantiseModelQdqOptions extends Omit<QdqOptions, 'calibration'>, QuantisedFolderOptions {}

/** What the folder says about itself in `cqil.quantise.json`. */
export interface QdqRecord extends QuantisedFolderRecord, Omit<QdqResult, 'model'> {
  readonly version: 1;
  readonly format: 'qdq';
}

export interface QdqModel extends QdqRecord, QuantisedFolder {}

/**
 * Quantises a model on disk by `quantiseQdq` into a folder of its own, as `quantiseModel` does: its graph is called
 * `model_quantized.onnx` where names tell a dtype, and its config says so. Options and graph are checked before any text
 * is opened, or written by the model.
 *
 * @throws UsageError `OUTPUT_NOT_EMPTY`, `OUTPUT_IS_SOURCE`; what `quantiseQdq`, `openTextSets` and `loadTokenizer`
 *   throw; VerificationError `QUANTISE_BROKEN`; EnvironmentError `WRITE_FAILED`; the signal's reason
 */
export async function quantiseModelQdq(
  source: ModelSource,
  outDir: string,
  options: QuantiseModelQdqOptions = {},
): Promise<QdqModel> {
  return writeQuantised(
    source,
    outDir,
    options,
    async (original) => {
      const prepared = await prepareQdq(original, options);
      return async (texts) => {
        const calibration = texts === undefined ? [] : interleaved(texts);
        const { model, ...made } = await quantisePrepared(prepared, { ...options, calibration });
        return { model, bits: 8, record: { version: 1, format: 'qdq', ...made } as const };
      };
    },
    { needsText: true, hint: 'Say which model it is, and give `blocks` a try meanwhile.' },
  );
}
