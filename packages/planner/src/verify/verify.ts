import { type CqilError, type OnProgress, type Plan, UsageError, VerificationError } from '@cqil/core';
import { DecoderSession, type SessionOptions } from '@cqil/runtime-gpu';
import { type Anatomy, analyze } from '../anatomy/index.js';
import {
  type Comparison,
  compare,
  encodeStart,
  loadTokenizer,
  type WindowOptions,
} from '../evaluate/index.js';
import { interfaceDifferences, structuralFaults } from '../onnx/check.js';
import { type Model, readModel } from '../onnx/index.js';
import { describeRefitted } from '../recover/metadata.js';
import type { RewriteCheck } from '../rewrite/index.js';
import { merges, splitCaches } from '../rewrite/wide/index.js';
import { locateModel, type ModelSource } from '../source/index.js';
import { checkParity, type ParityOptions } from './parity.js';
import { findPlan } from './plan-of.js';
import { hasRefits, type Refitted, transplantRefits, weightsOfRefits } from './refit.js';
import { SAMPLE_TEXT } from './sample-text.js';
import { arithmeticOf } from './tolerance.js';
import type { CheckName, VerifyCheck, VerifyReport } from './types.js';
import { checkWeights, type RefittedWeights } from './weights.js';
import { holdWide, weightsOfWide } from './wide.js';

export interface VerifyOptions {
  /** The plan to hold the rewritten model to; the one it carries when absent. */
  readonly plan?: Plan;
  /** Held-out text, or its token ids: for `quality`, and for parity besides random tokens. */
  readonly text?: string | readonly number[];
  /** Only what needs no run: structure, plan, inputs and outputs, weights. */
  readonly structureOnly?: boolean;
  /** `false` leaves the comparison with the method's formulas out. */
  readonly parity?: boolean;
  /** Perplexity, KL and top-1 agreement on `text`; measured when there is text, `false` leaves it out. */
  readonly quality?: boolean;
  /** Tokens of a text given as a string that `quality` uses; 2,048 when absent. */
  readonly tokens?: number;
  readonly windows?: WindowOptions;
  readonly seed?: number;
  readonly session?: SessionOptions;
  readonly signal?: AbortSignal;
  readonly onProgress?: OnProgress;
}

const QUALITY_TOKENS = 2048;

/**
 * Checks a rewritten model against its original: structure, inputs and outputs, weights, the numbers it computes
 * against the method's formulas on parts of the original, and how well it predicts a text.
 *
 * Of a model that recovery changed, the matrices that it declares are put into a copy of the original, and the formulas
 * are computed on that; all other weights must be the original's. Quality is measured against the original itself.
 *
 * @param original folder or `.onnx` file, or what `locateModel` gave for it
 * @param rewritten the same
 * @throws UsageError `VERIFY_NO_TEXT`, and from `locateModel`; AnatomyError for an original that is no decoder this
 *   project understands; ModelFormatError for files that cannot be read; InferenceError for an original that
 *   cannot be run; the signal's reason. What is wrong with the rewritten graph is not thrown but reported.
 * @example
 * ```ts
 * const report = await verify('model', 'model-cqil', { text: 'Call me Ishmael. …' });
 * if (!report.ok) console.error(report.checks.filter((check) => !check.ok));
 * ```
 */
export async function verify(
  original: ModelSource | string,
  rewritten: ModelSource | string,
  options: VerifyOptions = {},
): Promise<VerifyReport> {
  if (options.quality === true && options.text === undefined) {
    throw new UsageError('VERIFY_NO_TEXT', 'Quality can only be measured on a text.', {
      expected: 'a text or its token ids',
      found: 'none',
    });
  }
  const after = typeof rewritten === 'string' ? await locateModel(rewritten) : rewritten;
  const before = typeof original === 'string' ? await locateOriginal(original, after) : original;
  const [originalModel, rewrittenModel] = [await readModel(before.onnxFile), await readModel(after.onnxFile)];
  const ids = options.structureOnly === true ? undefined : await tokenIds(before, options);
  const { text: _, ...settings } = options;
  const report = await verifyModels(originalModel, rewrittenModel, {
    ...settings,
    folder: after.root,
    ...(ids === undefined ? {} : { text: ids }),
  });
  const wanted = options.quality !== false && options.structureOnly !== true && options.text !== undefined;
  if (!wanted || ids === undefined) return report;
  if (!report.ok) {
    const detail = 'not measured, since another check failed';
    return withChecks(report, [skipped('quality', 'EARLIER_FAILURE', detail)]);
  }
  const quality = await measureQuality(before, after, ids, options);
  const finite = [quality.kl, quality.a.perplexity, quality.b.perplexity].every(Number.isFinite);
  const check: VerifyCheck = {
    name: 'quality',
    status: finite ? 'passed' : 'failed',
    ok: finite,
    ...(finite ? {} : { code: 'NOT_FINITE' }),
    detail: describeQuality(quality),
  };
  return { ...withChecks(report, [check]), quality };
}

/** Of several graphs in the original's folder the one of the rewritten model's dtype. */
async function locateOriginal(path: string, rewritten: ModelSource): Promise<ModelSource> {
  const { dtype } = rewritten;
  if (dtype === 'as-is') return locateModel(path);
  try {
    const chosen = await locateModel(path);
    const other = chosen.dtype !== dtype && chosen.available.includes(dtype);
    return other ? await locateModel(path, { dtype }) : chosen;
  } catch (error) {
    if (!isCoded(error, 'MODEL_DTYPE_MISSING')) throw error;
    return locateModel(path, { dtype });
  }
}

export interface VerifyRewrittenOptions
  extends Pick<VerifyOptions, 'plan' | 'parity' | 'seed' | 'session' | 'signal' | 'onProgress'> {
  /** Models with more bytes of weights are not run; 2 GB when absent. */
  readonly parityLimit?: number;
}

/** What fits a protobuf message, and leaves room in the memory of small machines. */
const PARITY_LIMIT = 2 ** 31;

/**
 * The quick form of `verify`, for a model that was just rewritten: structure, plan, inputs and outputs, weights, and
 * parity on short inputs unless the model is over 2 GB.
 *
 * @throws as `verify`
 */
export async function verifyRewritten(
  original: Model,
  rewritten: Model,
  options: VerifyRewrittenOptions = {},
): Promise<VerifyReport> {
  const limit = options.parityLimit ?? PARITY_LIMIT;
  const bytes = weightBytes(rewritten);
  if (options.parity === false || bytes <= limit)
    return verifyModels(original, rewritten, { ...options, short: true });
  const report = await verifyModels(original, rewritten, { ...options, parity: false });
  const detail = `${gigabytes(bytes)} of weights, over ${gigabytes(limit)}: not run`;
  return {
    ...report,
    checks: report.checks.map((check) =>
      check.name === 'parity' && check.code === 'NOT_WANTED'
        ? skipped('parity', 'MODEL_TOO_LARGE', detail)
        : check,
    ),
  };
}

/**
 * `verifyRewritten` as the check of `rewriteModel`.
 *
 * @example
 * ```ts
 * await rewriteModel(source, plan, 'out', { check: rewriteCheck(source) });
 * ```
 */
export function rewriteCheck(source: ModelSource, options: VerifyRewrittenOptions = {}): RewriteCheck {
  return async (rewritten, signal) => {
    const original = await readModel(source.onnxFile);
    const report = await verifyRewritten(original, rewritten, {
      ...options,
      ...(signal === undefined ? {} : { signal }),
    });
    return failureOf(report);
  };
}

/** What failed, in one text; `undefined` where nothing did. */
export function failureOf(report: VerifyReport): string | undefined {
  const failures = report.checks.filter((check) => !check.ok);
  if (failures.length === 0) return undefined;
  return failures.map((check) => `${check.name}: ${check.detail}`).join('; ');
}

interface ModelsOptions extends Omit<VerifyOptions, 'text'> {
  readonly folder?: string;
  readonly text?: readonly number[];
  readonly short?: boolean;
}

/** Checks of two models, cheapest first; what makes the next ones meaningless leaves them out. */
async function verifyModels(original: Model, given: Model, options: ModelsOptions): Promise<VerifyReport> {
  const anatomy = analyze(original);
  const { plan, check } = await findPlan(anatomy, given, options.folder, options.plan);
  const { model: rewritten, check: shapes } = checkShapes(original, anatomy, given);
  const recovery = checkRecovery(original, anatomy, rewritten, plan);
  const wideNames = weightsOfWide(rewritten, plan);
  const weights = {
    names: new Set([...(recovery.weights?.names ?? []), ...wideNames]),
    matrices: recovery.weights === undefined ? 0 : recovery.weights.matrices,
    wide: plan?.groups.filter(merges).length ?? 0,
  };
  const checks: VerifyCheck[] = [
    checkStructure(original, given),
    shapes,
    check,
    ...(recovery.check === undefined ? [] : [recovery.check]),
    await checkWeights(original, rewritten, weights, options.signal),
  ];
  let held = recovery.refitted?.model ?? original;
  if (
    plan !== undefined &&
    weights.wide > 0 &&
    checks.every(({ ok }) => ok) &&
    options.structureOnly !== true
  ) {
    const refitted = recovery.refitted?.maps ?? [];
    const wide = await holdWide(held, original, anatomy, rewritten, plan, refitted, options.session);
    held = wide.model;
    checks.push(wide.check);
  }
  const broken = checks.find(({ ok }) => !ok);
  if (options.parity === false || options.structureOnly === true) {
    checks.push(skipped('parity', 'NOT_WANTED', 'left out as asked'));
  } else if (broken !== undefined || plan === undefined) {
    checks.push(skipped('parity', 'EARLIER_FAILURE', `not run, since "${broken?.name ?? 'plan'}" failed`));
  } else {
    checks.push(
      ...(await parity(held, held === original ? anatomy : analyze(held), rewritten, plan, options)),
    );
  }
  return {
    ok: checks.every(({ ok }) => ok),
    original: original.file ?? 'model in memory',
    rewritten: given.file ?? 'model in memory',
    ...(plan === undefined ? {} : { plan }),
    ...(recovery.refitted === undefined ? {} : { refitted: recovery.refitted.maps }),
    arithmetic: arithmeticOf(original),
    checks,
  };
}

interface FoundRecovery {
  /** None for a model that was not recovered, or not rightly. */
  readonly refitted?: Refitted;
  /** Left out for a model that was not recovered. */
  readonly check?: VerifyCheck;
  readonly weights?: RefittedWeights;
}

function checkRecovery(
  original: Model,
  anatomy: Anatomy,
  rewritten: Model,
  plan: Plan | undefined,
): FoundRecovery {
  if (!hasRefits(rewritten)) return {};
  // What is wrong with the matrices is this check's to say, not that of the weights.
  const weights = { names: weightsOfRefits(original, rewritten), matrices: undefined };
  if (plan === undefined) {
    return { weights, check: skipped('recovery', 'EARLIER_FAILURE', 'not looked at, since "plan" failed') };
  }
  try {
    const refitted = transplantRefits(original, anatomy, rewritten, plan);
    const { maps } = refitted;
    const detail = `${describeRefitted(maps)}, as declared`;
    return {
      refitted,
      check: { name: 'recovery', status: 'passed', ok: true, detail },
      weights: { names: refitted.weights, matrices: maps.length },
    };
  } catch (error) {
    if (!(error instanceof VerificationError || isCoded(error, 'RECOVERY_'))) throw error;
    const { code, message } = error as CqilError;
    const detail = message.replaceAll(/\n\s*/g, '; ');
    return { weights, check: { name: 'recovery', status: 'failed', ok: false, code, detail } };
  }
}

function checkStructure(original: Model, rewritten: Model): VerifyCheck {
  // A fault that the source had before is not the rewriting's; what runs it forgives it.
  const known = new Set(structuralFaults(original).map(({ message }) => message));
  const faults = structuralFaults(rewritten).filter(({ message }) => !known.has(message));
  const [first] = faults;
  if (first === undefined) {
    const detail = `${rewritten.graph.nodes.length} nodes, by the rules of the ONNX specification`;
    return { name: 'structure', status: 'passed', ok: true, detail };
  }
  const more = faults.length > 1 ? ` (and ${faults.length - 1} more)` : '';
  return {
    name: 'structure',
    status: 'failed',
    ok: false,
    code: first.code,
    detail: first.message.replaceAll(/\n\s*/g, '; ') + more,
  };
}

/**
 * Compares inputs and outputs with the original's.
 *
 * @returns also the model with one cache for each original layer, which is the one given unless caches were merged
 */
function checkShapes(original: Model, anatomy: Anatomy, given: Model): { model: Model; check: VerifyCheck } {
  const failed = (code: string, detail: string): VerifyCheck => ({
    name: 'shapes',
    status: 'failed',
    ok: false,
    code,
    detail,
  });
  let model = given;
  try {
    model = splitCaches(given, original, anatomy);
  } catch (error) {
    if (!isCoded(error, 'KV_')) throw error;
    const { code, message } = error as CqilError;
    return { model, check: failed(code, message.replaceAll(/\n\s*/g, '; ')) };
  }
  const differences = interfaceDifferences(original, model);
  if (differences.length > 0) {
    const more = differences.length > 3 ? ` and ${differences.length - 3} more` : '';
    return { model, check: failed('INTERFACE', differences.slice(0, 3).join('; ') + more) };
  }
  const { feeds, outputs } = given.graph;
  const merged = model === given ? '' : `, but for the caches of wide layers, merged as declared`;
  const detail = `${feeds.length} inputs and ${outputs.length} outputs, the original's${merged}`;
  return { model, check: { name: 'shapes', status: 'passed', ok: true, detail } };
}

async function parity(
  original: Model,
  anatomy: Anatomy,
  rewritten: Model,
  plan: Plan,
  options: ModelsOptions,
): Promise<VerifyCheck[]> {
  const { seed, text, short, session, signal, onProgress } = options;
  const given: ParityOptions = {
    ...(seed === undefined ? {} : { seed }),
    ...(text === undefined ? {} : { text }),
    ...(short === undefined ? {} : { short }),
    ...(session === undefined ? {} : { session }),
    ...(signal === undefined ? {} : { signal }),
    ...(onProgress === undefined ? {} : { onProgress }),
  };
  try {
    return await checkParity(original, anatomy, rewritten, plan, given);
  } catch (error) {
    if (error instanceof VerificationError && error.code === 'VERIFY_CUT') {
      return [skipped('parity', error.code, error.message.replaceAll(/\n\s*/g, '; '))];
    }
    throw error;
  }
}

/** Ids of the text that was given, or of a sample where the model has a tokenizer. */
async function tokenIds(source: ModelSource, options: VerifyOptions): Promise<readonly number[] | undefined> {
  const { text } = options;
  if (text !== undefined && typeof text !== 'string') return text;
  if (text === undefined && options.parity === false) return undefined;
  try {
    const tokenizer = await loadTokenizer(source.root);
    return encodeStart(tokenizer, text ?? SAMPLE_TEXT, options.tokens ?? QUALITY_TOKENS);
  } catch (error) {
    // Nobody asked for the sample, so a model without a tokenizer is compared on random tokens alone.
    if (text === undefined && isCoded(error, 'TOKENIZER_')) return undefined;
    throw error;
  }
}

function isCoded(error: unknown, prefix: string): boolean {
  return error instanceof Error && 'code' in error && String((error as CqilError).code).startsWith(prefix);
}

async function measureQuality(
  original: ModelSource,
  rewritten: ModelSource,
  ids: readonly number[],
  options: VerifyOptions,
): Promise<Comparison> {
  const a = await DecoderSession.open(original.onnxFile, options.session);
  try {
    const b = await DecoderSession.open(rewritten.onnxFile, options.session);
    try {
      return await compare(a, b, ids, {
        ...options.windows,
        ...(options.signal === undefined ? {} : { signal: options.signal }),
        ...(options.onProgress === undefined ? {} : { onProgress: options.onProgress }),
      });
    } finally {
      await b.dispose();
    }
  } finally {
    await a.dispose();
  }
}

function describeQuality({ a, b, ratio, kl, top1Agreement, tokens }: Comparison): string {
  const change = `${ratio >= 1 ? '+' : ''}${((ratio - 1) * 100).toFixed(1)} %`;
  return (
    `perplexity ${a.perplexity.toFixed(2)} to ${b.perplexity.toFixed(2)} (${change}), KL ${kl.toPrecision(3)} nats, ` +
    `same best token at ${(top1Agreement * 100).toFixed(1)} % of ${tokens} positions`
  );
}

function withChecks(report: VerifyReport, more: readonly VerifyCheck[]): VerifyReport {
  const checks = [...report.checks, ...more];
  return { ...report, checks, ok: checks.every(({ ok }) => ok) };
}

function skipped(name: CheckName, code: string, detail: string): VerifyCheck {
  return { name, status: 'skipped', ok: true, code, detail };
}

function weightBytes(model: Model): number {
  let sum = 0;
  for (const tensor of model.graph.initializers.values()) sum += tensor.byteLength;
  return sum;
}

function gigabytes(bytes: number): string {
  return `${(bytes / 1e9).toFixed(1)} GB`;
}
