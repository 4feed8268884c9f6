import path from 'node:path';
import { CqilError, type OnProgress, VerificationError } from '@cqil/core';
import { DecoderSession, type SessionOptions } from '@cqil/runtime-gpu';
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

/** The name under which a quantised folder holds what was done to its matrices. */
export const QUANTISE_FILE = 'cqil.quantise.json';

/** What making a folder takes, whatever form the weights get. */
export interface QuantisedFolderOptions {
  /**
   * Texts to calibrate with and, apart from that, to measure by: see `openTextSets`. The model writes it itself where
   * some is needed and none is given.
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
  readonly session?: SessionOptions;
  readonly signal?: AbortSignal;
  readonly onProgress?: OnProgress;
}

/** What every quantised folder says about itself. */
export interface QuantisedFolderRecord {
  /** Bytes of all weights. */
  readonly bytes: { readonly before: number; readonly after: number };
  readonly texts?: Readonly<Record<TextSetName, TextSetRecord>>;
  /** By kind of text, beside the original; absent without text. */
  readonly quality?: KindsEvaluation;
}

/** Where a quantised model was written. */
export interface QuantisedFolder {
  /** The folder, absolute. */
  readonly root: string;
  readonly onnxFile: string;
}

/** A quantised model, and what is to be said about how it was made. */
export interface Quantised<R> {
  readonly model: Model;
  /** Of most of its weights: the file is named by it. */
  readonly bits: 4 | 8;
  readonly record: R;
}

/**
 * Writes a quantised model into a folder of its own; see `quantiseModel`.
 *
 * @param prepare checks the options and the model, before any text is opened; what it gives quantises the model, on text
 *   where there is some
 * @param needsText whether the model writes text itself where none is given
 * @param hint what to try when the result cannot be run
 */
export async function writeQuantised<R extends object>(
  source: ModelSource,
  outDir: string,
  options: QuantisedFolderOptions,
  prepare: (original: Model) => Promise<(texts: TextSets | undefined) => Promise<Quantised<R>>>,
  { needsText, hint }: { readonly needsText: boolean; readonly hint: string },
): Promise<R & QuantisedFolderRecord & QuantisedFolder> {
  const root = path.resolve(outDir);
  await assertFree(root, source, options.force === true ? QUANTISE_FILE : undefined);
  const original = await readModel(source.onnxFile);
  const make = await prepare(original);
  const texts = needsText || options.texts !== undefined ? await openTexts(source, options) : undefined;
  const { model, bits, record: made } = await make(texts);
  const evaluation = await texts?.openEvaluation();
  const quality = evaluation && (await qualityOf(source, model, evaluation, options));
  const { signal, onProgress } = options;
  const record: R & QuantisedFolderRecord = {
    ...made,
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
        hint,
      }),
    ...(signal === undefined ? {} : { signal }),
    ...(onProgress === undefined ? {} : { onProgress }),
  });
  return { root, onnxFile: path.join(root, target.onnxRelative), ...record };
}

async function openTexts(source: ModelSource, options: QuantisedFolderOptions): Promise<TextSets> {
  const { evaluationTexts, tokens, window, signal, onProgress, session } = options;
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
export function interleaved({ calibration }: TextSets): (readonly number[])[] {
  const longest = Math.max(...calibration.kinds.map(({ windows }) => windows.length));
  return Array.from({ length: longest }, (_, i) => calibration.kinds.map(({ windows }) => windows[i]))
    .flat()
    .filter((ids) => ids !== undefined);
}

async function qualityOf(
  source: ModelSource,
  model: Model,
  evaluation: Awaited<ReturnType<TextSets['openEvaluation']>>,
  { session, signal, onProgress }: QuantisedFolderOptions,
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
async function loads(written: Model, { session }: QuantisedFolderOptions): Promise<string | undefined> {
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
