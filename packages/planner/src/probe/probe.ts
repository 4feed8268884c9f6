import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { type OnProgress, SimilarityAccumulator, tokenMask, UsageError } from '@cqil/core';
import { asFloat32, DecoderSession, type Session, type SessionOptions } from '@cqil/runtime-gpu';
import { type Anatomy, analyze } from '../anatomy/index.js';
import { writeText } from '../evaluate/self-text.js';
import { describeText, loadText } from '../evaluate/text.js';
import { loadTokenizer } from '../evaluate/tokenizer.js';
import { readModel } from '../onnx/index.js';
import type { ModelSource } from '../source/index.js';
import { openVariant } from '../variant/index.js';
import { unfuseSkipNorms } from '../verify/unfuse.js';
import { blockDependencies, type TappedSequence } from './block-dependency.js';
import type { ProbeResult } from './document.js';
import { excerpts } from './excerpts.js';
import { hiddenSize, runSequence } from './run.js';
import { streamPoints, tappedModel } from './taps.js';

export interface ProbeOptions {
  /**
   * What to run the model on: paths of UTF-8 files, `npm:<package>` for installed data set packages, or `self`
   * for text that the model writes itself. `['self']` when absent.
   */
  readonly texts?: readonly string[];
  /** Token ids instead of texts, one sequence a row. */
  readonly ids?: readonly (readonly number[])[];
  /** About how many tokens to run in all; 4,096 when absent. */
  readonly tokens?: number;
  /** Tokens run at once; 256 when absent. */
  readonly window?: number;
  /**
   * Tokens left out at the start of each window, where decoders put activations of another scale (massive
   * activations, arXiv 2402.17762); 1 when absent.
   */
  readonly skipFirst?: number;
  /** Tokens in a minibatch of the CKA estimate; 64 when absent. */
  readonly ckaBatch?: number;
  /** Also measures how each layer depends on those before it. Runs `span` times as many layers again. */
  readonly blockDependency?: { readonly span?: number; readonly tokens?: number };
  /** For what the model writes itself; 1 when absent. */
  readonly seed?: number;
  /** Where packages and relative paths of texts are looked up; the working directory when absent. */
  readonly cwd?: string;
  readonly session?: SessionOptions;
  readonly signal?: AbortSignal;
  readonly onProgress?: OnProgress;
}

interface Calibration {
  readonly sequences: readonly (readonly number[])[];
  readonly text: ProbeResult['text'];
}

const DEPENDENCY_SPAN = 4;
/** The stream's states of these are held in memory at the same time. */
const DEPENDENCY_TOKENS = 1024;

/**
 * Runs a model over calibration text with taps on the residual stream and measures how alike the inputs of its
 * layers are. Activations are not kept; memory is that of the model and of one window.
 *
 * @throws UsageError `PROBE_OPTIONS` and what `loadText` throws; AnatomyError from `analyze`; InferenceError;
 *   the signal's reason
 */
export async function probe(source: ModelSource, options: ProbeOptions = {}): Promise<ProbeResult> {
  const { window = 256, skipFirst = 1, ckaBatch = 64, tokens = 4096 } = options;
  checkOptions({ window, skipFirst, tokens });
  const model = await readModel(source.onnxFile);
  const anatomy = analyze(model);
  const calibration = await calibrationText(source, options, tokens, window);
  const unfused = unfuseSkipNorms(model);
  const session = await openVariant(tappedModel(unfused, anatomy), options.session);
  let similarity: SimilarityAccumulator | undefined;
  const kept: TappedSequence[] = [];
  const keepTokens = options.blockDependency && (options.blockDependency.tokens ?? DEPENDENCY_TOKENS);
  const total = calibration.sequences.reduce((sum, ids) => sum + ids.length, 0);
  let done = 0;
  try {
    for (const ids of calibration.sequences) {
      options.signal?.throwIfAborted();
      const states = await streamStates(session, anatomy, ids);
      const hidden = hiddenSize(states[0]!);
      similarity ??= new SimilarityAccumulator({ points: states.length, hidden, ckaBatch });
      const mask = tokenMask({ batch: 1, sequence: ids.length, skipFirst });
      similarity.add(
        states.map((state) => asFloat32(state)),
        { mask },
      );
      if (keepTokens !== undefined && done < keepTokens) kept.push({ ids, states });
      done += ids.length;
      options.onProgress?.({ phase: 'probing layers', done, total, unit: 'tokens' });
    }
  } finally {
    await session.dispose();
  }
  const { cosine, angular, relativeL2, cka, blockInfluence, tokens: counted } = similarity!.finish();
  const copy = (rows: readonly (readonly number[])[]) => rows.map((row) => [...row]);
  return {
    version: 1,
    model: { graph: source.onnxRelative, dtype: source.dtype, sha256: await fileHash(source.onnxFile) },
    layers: anatomy.layers.length,
    hidden: similarity!.hidden,
    text: calibration.text,
    settings: { window, skipFirst, ckaBatch },
    tokens: counted,
    metrics: {
      cosine: copy(cosine),
      angular: copy(angular),
      relativeL2: copy(relativeL2),
      cka: cka === null ? null : copy(cka),
      blockInfluence: [...blockInfluence],
    },
    ...(options.blockDependency === undefined
      ? {}
      : { blockDependency: await dependency(options.blockDependency.span ?? DEPENDENCY_SPAN) }),
  };

  async function dependency(span: number): Promise<NonNullable<ProbeResult['blockDependency']>> {
    const distance = await blockDependencies(unfused, anatomy, kept, {
      span,
      skipFirst,
      ...(options.session === undefined ? {} : { session: options.session }),
      ...(options.signal === undefined ? {} : { signal: options.signal }),
      ...(options.onProgress === undefined ? {} : { onProgress: options.onProgress }),
    });
    const used = kept.reduce((sum, { ids }) => sum + Math.max(0, ids.length - skipFirst), 0);
    return { span, tokens: used, distance };
  }
}

async function streamStates(session: Session, anatomy: Anatomy, ids: readonly number[]) {
  const points = streamPoints(anatomy);
  const results = await runSequence(session, ids, [...new Set(points)]);
  return points.map((name) => results[name]!);
}

async function calibrationText(
  source: ModelSource,
  options: ProbeOptions,
  tokens: number,
  window: number,
): Promise<Calibration> {
  if (options.ids !== undefined) {
    const sequences = cutInto(options.ids, window);
    const flat = sequences.flat();
    const sha256 = createHash('sha256').update(flat.join('\n')).digest('hex');
    return { sequences, text: [{ kind: 'ids', spec: 'ids', sha256, tokens: flat.length }] };
  }
  const specs = options.texts ?? ['self'];
  if (specs.length === 0) throw badOption('texts', 'one text or more', 'none');
  const tokenizer = await loadTokenizer(source.root);
  const where = options.cwd === undefined ? {} : { cwd: options.cwd };
  const share = Math.ceil(tokens / specs.length);
  const sequences: (readonly number[])[] = [];
  const text: ProbeResult['text'][number][] = [];
  for (const spec of specs) {
    options.signal?.throwIfAborted();
    if (spec === 'self') {
      const rows = await ownText(source, tokenizer, options, share, window);
      const { text: _written, ...provenance } = describeText(
        { kind: 'self', spec },
        rows.map((row) => tokenizer.decode(row)).join('\n\n'),
      );
      sequences.push(...rows);
      text.push({ ...provenance, tokens: rows.flat().length });
      continue;
    }
    const { text: whole, ...provenance } = await loadText(spec, where);
    const taken = excerpts(tokenizer, [whole], { tokens: share, window }).flat();
    sequences.push(...taken);
    text.push({ ...provenance, tokens: taken.flat().length });
  }
  return { sequences, text };
}

async function ownText(
  source: ModelSource,
  tokenizer: Awaited<ReturnType<typeof loadTokenizer>>,
  options: ProbeOptions,
  tokens: number,
  window: number,
): Promise<number[][]> {
  const decoder = await DecoderSession.open(source.onnxFile, options.session);
  try {
    return await writeText(decoder, tokenizer, {
      tokens,
      sequences: Math.max(1, Math.ceil(tokens / window)),
      seed: options.seed ?? 1,
      ...(options.signal === undefined ? {} : { signal: options.signal }),
      ...(options.onProgress === undefined ? {} : { onProgress: options.onProgress }),
    });
  } finally {
    await decoder.dispose();
  }
}

function cutInto(rows: readonly (readonly number[])[], window: number): number[][] {
  const sequences = rows.flatMap((row) => {
    const count = Math.ceil(row.length / window);
    return Array.from({ length: count }, (_, i) => row.slice(i * window, (i + 1) * window));
  });
  if (sequences.length === 0) throw badOption('ids', 'one token or more', 'none');
  return sequences;
}

async function fileHash(file: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(file)) hash.update(chunk as Buffer);
  return hash.digest('hex');
}

function checkOptions(options: { window: number; skipFirst: number; tokens: number }): void {
  const { window, skipFirst, tokens } = options;
  const whole = (value: number, least: number) => Number.isInteger(value) && value >= least;
  if (!whole(window, 2)) throw badOption('window', 'a whole number of 2 or more', String(window));
  if (!whole(tokens, 2)) throw badOption('tokens', 'a whole number of 2 or more', String(tokens));
  if (!whole(skipFirst, 0) || skipFirst >= window) {
    throw badOption('skipFirst', 'a whole number of 0 or more, below the window', String(skipFirst));
  }
}

function badOption(option: string, expected: string, found: string): UsageError {
  return new UsageError('PROBE_OPTIONS', `The option "${option}" makes no sense.`, { expected, found });
}
