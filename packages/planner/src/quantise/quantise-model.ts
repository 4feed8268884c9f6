import path from 'node:path';
import { CqilError, VerificationError } from '@cqil/core';
import { DecoderSession } from '@cqil/runtime-gpu';
import {
  evaluateKinds,
  type KindsEvaluation,
  loadTokenizer,
  openTextSets,
  type TextSetName,
  type TextSetRecord,
  type TextSets,
  textSetRecord,
} from '../evaluate/index.js';
import { DataType, type Model, readModel } from '../onnx/index.js';
import { packExternalData } from '../rewrite/pack-external-data.js';
import { assertFree, writeModelFolder } from '../rewrite/write-folder.js';
import type { ModelSource } from '../source/index.js';
import { openVariant } from '../variant/index.js';
import { nameDataFile, placeWeights, renamedSource } from './data-files.js';
import { quantise } from './quantise.js';
import type { QuantisedMatrix, QuantiseMethod, QuantiseOptions, UnquantisedMatrix } from './types.js';

/** The name under which a quantised folder holds what was done to its matrices. */
export const QUANTISE_FILE = 'cqil.quantise.json';

export interface QuantiseModelOptions extends Omit<QuantiseOptions, 'calibration' | 'development'> {
  /**
   * Texts to calibrate with and, apart from that, to measure by: see `openTextSets`. The model writes it itself where
   * `gptq` needs some and none is given.
   */
  readonly texts?: readonly string[];
  /** Text to measure by only; a fifth of `texts` when absent. */
  readonly evaluationTexts?: readonly string[];
  /** Tokens of text, in equal parts by kind; 16,384 and 6,144 when absent. */
  readonly tokens?: { readonly calibration?: number; readonly evaluation?: number };
  /** Tokens of every window; 512 when absent. */
  readonly window?: number;
  /** Replaces what is in `outDir`, if that is a folder this function wrote. */
  readonly force?: boolean;
}

/** What the folder says about itself in `cqil.quantise.json`. */
export interface QuantiseRecord {
  readonly version: 1;
  readonly bits: 4 | 8;
  readonly method: QuantiseMethod;
  readonly matrices: readonly QuantisedMatrix[];
  readonly left: readonly UnquantisedMatrix[];
  /** Bytes of all weights. */
  readonly bytes: { readonly before: number; readonly after: number };
  readonly texts?: Readonly<Record<TextSetName, TextSetRecord>>;
  /** By kind of text, beside the original; absent without text. */
  readonly quality?: KindsEvaluation;
}

export interface QuantisedModel extends QuantiseRecord {
  /** The folder, absolute. */
  readonly root: string;
  readonly onnxFile: string;
}

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
  const root = path.resolve(outDir);
  await assertFree(root, source, options.force === true ? QUANTISE_FILE : undefined);
  const original = await readModel(source.onnxFile);
  const texts = await textsFor(source, options);
  const { model, method, matrices, left } = await quantise(original, {
    ...options,
    ...(texts === undefined ? {} : { calibration: interleaved(texts), development: texts.development }),
  });
  const evaluation = await texts?.openEvaluation();
  const quality = evaluation && (await qualityOf(source, model, evaluation, options));
  const { bits = 4, signal, onProgress } = options;
  const record: QuantiseRecord = {
    version: 1,
    bits,
    method,
    matrices,
    left,
    bytes: { before: weightBytes(original), after: weightBytes(model) },
    ...(texts === undefined || evaluation === undefined
      ? {}
      : {
          texts: {
            calibration: textSetRecord(texts.calibration),
            development: textSetRecord(texts.development),
            evaluation: textSetRecord(evaluation),
          },
        }),
    ...(quality === undefined ? {} : { quality }),
  };
  const half = [...original.graph.initializers.values()].some(
    ({ dataType, dims }) => dataType === DataType.FLOAT16 && dims.length === 2,
  );
  const target = renamedSource(source, bits, half);
  const named = target !== source;
  const external = named ? placeWeights(model, target) : false;
  if (!named) packExternalData(model, original);
  await writeModelFolder(target, model, root, {
    document: { file: QUANTISE_FILE, text: `${JSON.stringify(record, null, 2)}\n` },
    check: async (written) => {
      if (named) await nameDataFile(rootOf(written.file as string, target), external);
      return loads(written, options);
    },
    broken: (found) =>
      new VerificationError('QUANTISE_BROKEN', 'The quantised model cannot be run and was not kept.', {
        expected: 'a model that ONNX Runtime loads and that gives finite logits',
        found,
        hint: 'Try another block size, or `embeddingBits: "float"`.',
      }),
    ...(signal === undefined ? {} : { signal }),
    ...(onProgress === undefined ? {} : { onProgress }),
  });
  return { root, onnxFile: path.join(root, target.onnxRelative), ...record };
}

async function textsFor(source: ModelSource, options: QuantiseModelOptions): Promise<TextSets | undefined> {
  const { evaluationTexts, tokens, window, signal, onProgress, session, method } = options;
  if (options.texts === undefined && method === 'rtn') return undefined;
  return openTextSets(await loadTokenizer(source.root), {
    texts: options.texts ?? ['self'],
    ...(evaluationTexts === undefined ? {} : { evaluationTexts }),
    tokens: {
      calibration: tokens?.calibration ?? 16384,
      // A window of each kind: what it tells are a few numbers.
      development: 1,
      evaluation: tokens?.evaluation ?? 6144,
    },
    ...(window === undefined ? {} : { window }),
    openModel: () => DecoderSession.open(source.onnxFile, session),
    ...(signal === undefined ? {} : { signal }),
    ...(onProgress === undefined ? {} : { onProgress }),
  });
}

/** Windows of all kinds by turns, so that each batch has something of each. */
function interleaved({ calibration }: TextSets): (readonly number[])[] {
  const longest = Math.max(...calibration.kinds.map(({ windows }) => windows.length));
  return Array.from({ length: longest }, (_, i) => calibration.kinds.map(({ windows }) => windows[i]))
    .flat()
    .filter((ids) => ids !== undefined);
}

async function qualityOf(
  source: ModelSource,
  model: Model,
  evaluation: Awaited<ReturnType<TextSets['openEvaluation']>>,
  { session, signal, onProgress }: QuantiseModelOptions,
): Promise<KindsEvaluation> {
  await using before = await DecoderSession.open(source.onnxFile, session);
  await using after = new DecoderSession(await openVariant(model, session));
  // Awaited here: the sessions end with this function.
  return await evaluateKinds(before, after, evaluation, {
    ...(signal === undefined ? {} : { signal }),
    ...(onProgress === undefined ? {} : { onProgress }),
  });
}

/** What is wrong with a model when it runs over a few tokens. */
async function loads(written: Model, { session }: QuantiseModelOptions): Promise<string | undefined> {
  try {
    await using decoder = await DecoderSession.open(written.file as string, session);
    const { logits } = await decoder.forward({ inputIds: [[1, 2, 3]], returnCache: false });
    return logits.data.every(Number.isFinite) ? undefined : 'logits that are no numbers';
  } catch (error) {
    if (error instanceof CqilError) return error.message;
    throw error;
  }
}

function rootOf(file: string, { onnxRelative }: ModelSource): string {
  return path.resolve(file, ...onnxRelative.split('/').map(() => '..'));
}

function weightBytes(model: Model): number {
  let sum = 0;
  for (const { byteLength } of model.graph.initializers.values()) sum += byteLength;
  return sum;
}
