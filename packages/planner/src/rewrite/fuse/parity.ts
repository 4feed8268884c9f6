import {
  type DecoderSignature,
  decoderSignature,
  type Session,
  type SessionOptions,
} from '@cqil/runtime-gpu';
import type { Model } from '../../onnx/index.js';
import { withVariant } from '../../variant/index.js';
import { makeCases, type TestCase } from '../../verify/cases.js';
import { allFinite, compareRuns, logitSpread } from '../../verify/compare.js';
import { toleranceFor } from '../../verify/parity.js';
import { type CaseRun, runCase } from '../../verify/run-case.js';
import { arithmeticOf, atFullAccuracy } from '../../verify/tolerance.js';
import type { FusePadding } from './types.js';

export interface FuseParity {
  readonly ok: boolean;
  /** Largest distance of two logits, over all that was run. */
  readonly logits: number;
  /** The largest that is allowed. */
  readonly tolerance: number;
  /** What was run and found, in a sentence. */
  readonly detail: string;
}

export interface FuseParityOptions {
  readonly padding?: FusePadding;
  readonly session?: SessionOptions;
  readonly signal?: AbortSignal;
}

/**
 * Runs a graph and the one that was fused from it on the same tokens: a prompt at once, token by token with the cache,
 * and two sequences, padded on the left where that is kept right. Logits and the caches of all layers must agree; in
 * padded sequences only logits are compared, since keys are rotated by their place there.
 */
export async function checkFused(
  original: Model,
  fused: Model,
  options: FuseParityOptions = {},
): Promise<FuseParity> {
  const session = options.session ?? {};
  const before = await withVariant(atFullAccuracy(original), session, (opened) =>
    runAll(opened, original, options),
  );
  const after = await withVariant(atFullAccuracy(fused), session, (opened) =>
    runAll(opened, original, options),
  );
  const parts: string[] = [];
  let ok = true;
  let logits = 0;
  let limit = 0;
  for (const [index, testCase] of before.cases.entries()) {
    const [a, b] = [before.runs[index] as CaseRun, after.runs[index] as CaseRun];
    if (!allFinite(a, testCase, before.signature)) continue;
    const tolerance = toleranceFor(
      arithmeticOf(original),
      logitSpread(a, testCase, before.signature),
      undefined,
    );
    const found = compareRuns(a, b, testCase, before.signature, tolerance);
    const cache = testCase.name === 'padded' ? 0 : found.cache;
    const fits = found.logits <= tolerance && cache <= tolerance && found.argmaxDifferences === 0;
    ok &&= fits;
    logits = Math.max(logits, found.logits);
    limit = Math.max(limit, tolerance);
    parts.push(
      `${testCase.name}: logits ${found.logits.toPrecision(3)}, caches ${cache.toPrecision(3)}${fits ? '' : ` (limit ${tolerance})`}`,
    );
  }
  return { ok: ok && parts.length > 0, logits, tolerance: limit, detail: parts.join('; ') };
}

interface Runs {
  readonly signature: DecoderSignature;
  readonly cases: readonly TestCase[];
  readonly runs: readonly CaseRun[];
}

async function runAll(session: Session, original: Model, options: FuseParityOptions): Promise<Runs> {
  const signature = decoderSignature(session.inputs, session.outputs);
  const batches = typeof signature.inputIds.shape[0] !== 'number';
  // Padding takes part in the scales that 8-bit models round all activations by, and what is computed there differs.
  const steady = arithmeticOf(original) !== 'int8';
  const padding = batches && steady && options.padding !== 'none' && signature.attentionMask !== undefined;
  const cases = makeCases({
    vocabulary: await vocabularyOf(session, signature),
    batches,
    padding,
    short: true,
  });
  const outputs = [signature.logits, ...signature.cache.map(({ present }) => present)];
  const runs: CaseRun[] = [];
  for (const testCase of cases) {
    options.signal?.throwIfAborted();
    runs.push(await runCase(session, signature, testCase, outputs));
  }
  return { signature, cases, runs };
}

async function vocabularyOf(session: Session, signature: DecoderSignature): Promise<number> {
  const declared = session.outputs.find(({ name }) => name === signature.logits)?.shape.at(-1);
  if (typeof declared === 'number') return declared;
  const one: TestCase = { name: 'prefill', steps: [{ ids: [[0]], mask: [[1]] }] };
  const { steps } = await runCase(session, signature, one, [signature.logits]);
  return steps[0]?.[signature.logits]?.dims.at(-1) ?? 1;
}
