import type { OnProgress, Plan } from '@cqil/core';
import {
  type DecoderSignature,
  decoderSignature,
  InferenceError,
  type Session,
  type SessionOptions,
} from '@cqil/runtime-gpu';
import type { Anatomy } from '../anatomy/index.js';
import type { Model } from '../onnx/index.js';
import { merges } from '../rewrite/wide/rewrite-groups.js';
import { withVariant } from '../variant/index.js';
import { type CaseName, type CaseOptions, makeCases, type TestCase } from './cases.js';
import { allFinite, type CaseDifference, compareRuns, logitSpread } from './compare.js';
import { type MethodOptions, runMethod } from './method.js';
import { type CaseRun, runCase } from './run-case.js';
import {
  type Arithmetic,
  arithmeticOf,
  atFullAccuracy,
  BASE_TOLERANCE,
  roundsActivations,
} from './tolerance.js';
import type { VerifyCheck } from './types.js';

export interface ParityOptions {
  readonly seed?: number;
  /** Tokens of a real text, compared besides random ones; the first 128 are used. */
  readonly text?: readonly number[];
  /** Fewer and shorter runs. */
  readonly short?: boolean;
  readonly session?: SessionOptions;
  readonly signal?: AbortSignal;
  readonly onProgress?: OnProgress;
}

const TEXT_TOKENS = 128;

/**
 * Compares a rewritten model with what its plan means, computed another way (`runMethod`): logits at every
 * position and the caches of every layer, for a prompt at once, token by token, and several sequences.
 *
 * Three things are run one after the other and freed: the original, the rewritten model, the original's parts.
 * Large models in float16 and int8 can differ by more than the usual limit through rounding alone; where one does,
 * the original in parts is compared with the original as a whole, which shows how much that is, and the limit is
 * raised by it.
 *
 * @throws ModelFormatError, InferenceError and VerificationError for models that cannot be run or cut apart; the
 *   signal's reason. A difference is not thrown but reported.
 */
export async function checkParity(
  original: Model,
  anatomy: Anatomy,
  rewritten: Model,
  plan: Plan,
  options: ParityOptions = {},
): Promise<VerifyCheck[]> {
  const source = atFullAccuracy(original);
  const result = atFullAccuracy(rewritten);
  const settings = options.session ?? {};

  options.signal?.throwIfAborted();
  const before = await withVariant(source, settings, async (session) => {
    const signature = decoderSignature(session.inputs, session.outputs);
    const cases = makeCases(await caseOptions(session, signature, options));
    return {
      signature,
      cases,
      runs: await runAll(session, signature, cases, 'running the original', options),
    };
  });
  const { signature, cases } = before;
  let found: CaseRun[];
  try {
    found = await withVariant(result, settings, (session) =>
      runAll(session, signature, cases, 'running the rewritten model', options),
    );
  } catch (error) {
    if (!(error instanceof InferenceError)) throw error;
    const detail = `ONNX Runtime does not run the rewritten model: ${error.message.replaceAll(/\n\s*/g, '; ')}`;
    return [{ name: 'parity', status: 'failed', ok: false, code: error.code, detail }];
  }
  const method: MethodOptions = {
    session: settings,
    ...(options.signal === undefined ? {} : { signal: options.signal }),
    ...(options.onProgress === undefined ? {} : { onProgress: options.onProgress }),
  };
  const expected = await runMethod(source, anatomy, plan, signature, cases, method);

  const arithmetic = arithmeticOf(original);
  const checkAll = (noise: Noise) =>
    cases.map((testCase, index) =>
      checkCase(testCase, signature, arithmetic, plan, noise, {
        original: before.runs[index] as CaseRun,
        expected: expected[index] as CaseRun,
        found: found[index] as CaseRun,
      }),
    );
  let checks = checkAll(NO_NOISE);
  if (roundsActivations(arithmetic) && plan.groups.length > 0 && checks.some(({ ok }) => !ok)) {
    const parts = await runMethod(source, anatomy, plan, signature, cases, { ...method, ungrouped: true });
    checks = checkAll(noiseOf(parts, before.runs, cases, signature));
  }
  return [...checks, ...notRun(signature, cases)];
}

/** Vocabulary and abilities, read off the graph or, where it does not say, off one run. */
async function caseOptions(
  session: Session,
  signature: DecoderSignature,
  options: ParityOptions,
): Promise<CaseOptions> {
  const declared = session.outputs.find(({ name }) => name === signature.logits)?.shape.at(-1);
  let vocabulary = typeof declared === 'number' ? declared : undefined;
  if (vocabulary === undefined) {
    const probe: TestCase = { name: 'prefill', steps: [{ ids: [[0]], mask: [[1]] }] };
    const { steps } = await runCase(session, signature, probe, [signature.logits]);
    vocabulary = steps[0]?.[signature.logits]?.dims.at(-1) ?? 1;
  }
  const batches = typeof signature.inputIds.shape[0] !== 'number';
  return {
    vocabulary,
    batches,
    padding: batches && takesPadding(signature),
    ...(options.seed === undefined ? {} : { seed: options.seed }),
    ...(options.short === undefined ? {} : { short: options.short }),
    ...(options.text === undefined ? {} : { text: options.text.slice(0, TEXT_TOKENS) }),
  };
}

/** Without positions of their own, padded rows would count their padding. */
function takesPadding(signature: DecoderSignature): boolean {
  return signature.positionIds !== undefined && signature.attentionMask !== undefined;
}

async function runAll(
  session: Session,
  signature: DecoderSignature,
  cases: readonly TestCase[],
  phase: string,
  options: ParityOptions,
): Promise<CaseRun[]> {
  const outputs = [signature.logits, ...signature.cache.map(({ present }) => present)];
  const runs: CaseRun[] = [];
  for (const testCase of cases) {
    options.signal?.throwIfAborted();
    options.onProgress?.({ phase, done: runs.length, total: cases.length, unit: 'runs' });
    runs.push(await runCase(session, signature, testCase, outputs));
  }
  options.onProgress?.({ phase, done: cases.length, total: cases.length, unit: 'runs' });
  return runs;
}

/** How far the same numbers are apart through rounding alone. */
interface Noise {
  readonly logits: number;
  readonly cache: number;
}

const NO_NOISE: Noise = { logits: 0, cache: 0 };

/** The largest distances between the original as a whole and the original computed in parts. */
function noiseOf(
  parts: readonly CaseRun[],
  whole: readonly CaseRun[],
  cases: readonly TestCase[],
  signature: DecoderSignature,
): Noise {
  const found = cases.map((testCase, index) =>
    compareRuns(whole[index] as CaseRun, parts[index] as CaseRun, testCase, signature, 0),
  );
  const largest = (distances: readonly number[]) => Math.max(0, ...distances.filter(Number.isFinite));
  return {
    logits: largest(found.map(({ logits }) => logits)),
    cache: largest(found.map(({ cache }) => cache)),
  };
}

interface Runs {
  readonly original: CaseRun;
  readonly expected: CaseRun;
  readonly found: CaseRun;
}

const WORDS: Readonly<Record<CaseName, string>> = {
  prefill: 'a prompt at once',
  decode: 'a prompt, then token by token with the cache',
  batch: 'two sequences of one length, then token by token',
  padded: 'two sequences, one padded on the left, then token by token',
  text: 'a real text, the end of it token by token',
};

function checkCase(
  testCase: TestCase,
  signature: DecoderSignature,
  arithmetic: Arithmetic,
  plan: Plan,
  noise: Noise,
  runs: Runs,
): VerifyCheck {
  const name = `parity.${testCase.name}` as const;
  const what = WORDS[testCase.name];
  if (!allFinite(runs.original, testCase, signature)) {
    return {
      name,
      status: 'skipped',
      ok: true,
      code: 'ORIGINAL_NOT_FINITE',
      detail: `${what}: the original itself gives no numbers here`,
    };
  }
  const effect = compareRuns(runs.expected, runs.original, testCase, signature, 0).logits;
  const spread = logitSpread(runs.expected, testCase, signature);
  const usual = toleranceFor(
    arithmetic,
    spread,
    plan.groups.length === 0 ? undefined : effect,
    plan.groups.some(merges),
  );
  const tolerance = Math.max(usual, Math.min(NOISE_MARGIN * noise.logits, MOST_OF_EFFECT * effect));
  const cacheTolerance = Math.max(usual, Math.min(NOISE_MARGIN * noise.cache, MOST_OF_CACHE));
  const difference = compareRuns(runs.expected, runs.found, testCase, signature, tolerance);
  const ok =
    difference.logits <= tolerance &&
    difference.cache <= cacheTolerance &&
    difference.argmaxDifferences === 0;
  return {
    name,
    status: ok ? 'passed' : 'failed',
    ok,
    ...(ok ? {} : { code: 'PARITY' }),
    detail: `${what}: ${describe(difference, tolerance, cacheTolerance)}${noise === NO_NOISE ? '' : `; rounding alone makes ${show(noise.logits)}`}`,
    maxAbsError: jsonNumber(difference.logits),
    tolerance,
    cacheError: jsonNumber(difference.cache),
    cacheTolerance,
    positions: difference.positions,
    argmaxDifferences: difference.argmaxDifferences,
    nearTies: difference.nearTies,
    planEffect: jsonNumber(effect),
    ...(noise === NO_NOISE ? {} : { noise: noise.logits }),
  };
}

/** Where rounding was measured, how many times as much is allowed, */
const NOISE_MARGIN = 8;
/** and how much of the plan's own effect at most: an error in the method moves logits about as far as that. */
const MOST_OF_EFFECT = 0.1;
/** Caches of two different layers are more than 1 apart in these units. */
const MOST_OF_CACHE = 0.5;

/** What rounding alone makes of logits in float32 over tens of layers, with room: 2e-4 was the most seen. */
const FLOAT32_NOISE = 5e-4;

/**
 * Products that were merged sum in another order. Behind massive activations, which a few tokens have in the first layers,
 * that moves logits more than rounding does elsewhere (SmolLM2, all layers in wide pairs: 3e-3), and by a small share of what
 * the plan moves them by; never further than this.
 */
const MERGED = { shareOfEffect: 2e-3, most: 0.02 } as const;

/**
 * The tolerance for logits with the given standard deviation, of a plan that moves them by `effect` (`undefined`
 * without groups).
 *
 * @param merged whether members of groups were put together into larger products
 *
 * In float32 rounding leaves room, and for plans that change little the limit shrinks, so that a model that was
 * not rewritten at all does not pass. In float16 and int8 the errors grow with the activations, so the limit grows
 * with the logits where these are larger than those of tiny models.
 */
export function toleranceFor(
  arithmetic: Arithmetic,
  spread: number,
  effect: number | undefined,
  merged = false,
): number {
  const base = BASE_TOLERANCE[arithmetic];
  if (roundsActivations(arithmetic)) {
    return base * Math.max(1, Number.isFinite(spread) ? spread : 1);
  }
  if (effect === undefined || !Number.isFinite(effect)) return base;
  const usual = Math.min(base, Math.max(0.05 * effect, FLOAT32_NOISE));
  return merged ? Math.max(usual, Math.min(MERGED.most, MERGED.shareOfEffect * effect)) : usual;
}

function describe(difference: CaseDifference, tolerance: number, cacheTolerance: number): string {
  const { logits, cache, cacheAt, argmaxDifferences, positions } = difference;
  const parts = [`largest logit error ${show(logits)}, limit ${show(tolerance)}`];
  const at = cache <= cacheTolerance ? '' : ` (at "${cacheAt}")`;
  const limit = cacheTolerance === tolerance ? '' : `, limit ${show(cacheTolerance)}`;
  parts.push(`cache ${show(cache)}${limit}${at}`);
  if (argmaxDifferences > 0)
    parts.push(`another best token at ${argmaxDifferences} of ${positions} positions`);
  return parts.join('; ');
}

function show(value: number): string {
  return Number.isFinite(value) ? value.toPrecision(3) : 'not a number';
}

function jsonNumber(value: number): number | null {
  return Number.isFinite(value) ? value : null;
}

function notRun(signature: DecoderSignature, cases: readonly TestCase[]): VerifyCheck[] {
  const names = new Set(cases.map((testCase) => testCase.name));
  const checks: VerifyCheck[] = [];
  if (!names.has('padded')) {
    const why = takesPadding(signature)
      ? 'the graph takes one sequence at a time'
      : 'the graph takes no positions, so a padded sequence cannot be told from an unpadded one';
    checks.push({ name: 'parity.padded', status: 'skipped', ok: true, code: 'NO_PADDING', detail: why });
  }
  return checks;
}
