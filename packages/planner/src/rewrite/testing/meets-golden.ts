import { readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import { type Bypass, type Plan, parsePlan } from '@cqil/core';
import { DecoderSession } from '@cqil/runtime-gpu';
import { expect } from 'vitest';
import { analyze } from '../../anatomy/index.js';
import { type Model, readModel, writeModel } from '../../onnx/index.js';
import { rewriteBranches } from '../index.js';

/** Logits of the method's mathematics, computed in PyTorch. */
interface Golden {
  readonly ids: number[];
  readonly plans: readonly GoldenPlan[];
}

interface GoldenPlan {
  readonly groups: readonly number[][];
  readonly bypass: Bypass;
  /** The best token at each position. */
  readonly argmax: readonly number[];
  readonly logits_last: readonly number[];
  /** How far the plan moves a logit from the original's. */
  readonly max_abs_change: number;
}

export interface GoldenOptions {
  /** Only plans with this bypass; all when absent. */
  readonly bypass?: Bypass;
  /** `rewriteBranches` when absent. */
  readonly rewrite?: (source: Model, plan: Plan) => Promise<Model>;
}

/**
 * Rewrites a model by every plan of a golden file and holds the logits of the last position to 1e-3, or to a twentieth
 * of what the plan changes if that is less, and the best token of every position to the golden one: a prompt at once,
 * token by token with the cache, and padded on the left where the graph takes positions.
 *
 * @returns the number of plans
 */
export async function meetsGolden(
  modelFile: string,
  goldenFile: string,
  scratch: string,
  { bypass, rewrite = inBranches }: GoldenOptions = {},
): Promise<number> {
  const golden = JSON.parse(await readFile(goldenFile, 'utf8')) as Golden;
  const source = await readModel(modelFile);
  const layers = analyze(source).layers.length;
  expect(golden.plans.length).toBeGreaterThanOrEqual(4);
  const plans = golden.plans.filter((expected) => bypass === undefined || expected.bypass === bypass);
  for (const expected of plans) {
    const groups = expected.groups.map((group) => ({ layers: group, bypass: expected.bypass }));
    const model = await rewrite(source, parsePlan({ version: 1, layers, groups }));
    expect(interfaceOf(model)).toEqual(interfaceOf(source));
    const file = path.join(scratch, 'golden', 'model.onnx');
    await writeModel(model, file);
    const decoder = await DecoderSession.open(file);
    try {
      await runsAsExpected(decoder, golden.ids, expected);
    } finally {
      await decoder.dispose();
      await rm(path.dirname(file), { recursive: true });
    }
  }
  return plans.length;
}

function inBranches(source: Model, plan: Plan): Promise<Model> {
  return Promise.resolve(rewriteBranches(source, plan).model);
}

async function runsAsExpected(decoder: DecoderSession, ids: number[], expected: GoldenPlan): Promise<void> {
  const limit = Math.min(1e-3, 0.05 * expected.max_abs_change);
  const vocabulary = expected.logits_last.length;
  const whole = await decoder.forward({ inputIds: [ids] });
  expect(bestTokens(whole.logits.data, vocabulary)).toEqual(expected.argmax);
  expect(distance(whole.logits.data.slice(-vocabulary), expected.logits_last)).toBeLessThanOrEqual(limit);

  let step = await decoder.forward({ inputIds: [ids.slice(0, 15)] });
  const best = bestTokens(step.logits.data, vocabulary);
  for (const id of ids.slice(15)) {
    step = await decoder.forward({ inputIds: [[id]], cache: step.cache });
    best.push(...bestTokens(step.logits.data, vocabulary));
  }
  expect(best).toEqual(expected.argmax);
  expect(distance(step.logits.data, expected.logits_last)).toBeLessThanOrEqual(limit);

  if (!decoder.session.inputs.some(({ name }) => name === 'position_ids')) return;
  const padded = await decoder.forward({ inputIds: [[...ids, ...ids.slice(0, 5)], ids] });
  const last = padded.logits.data.slice(-vocabulary);
  expect(distance(last, expected.logits_last)).toBeLessThanOrEqual(Math.max(limit, 2e-3));
}

function interfaceOf({ graph }: Model): string[][] {
  return [graph.inputs.map(({ name }) => name), graph.outputs.map(({ name }) => name)];
}

function bestTokens(logits: Float32Array, vocabulary: number): number[] {
  return Array.from({ length: logits.length / vocabulary }, (_, row) => {
    const values = logits.subarray(row * vocabulary, (row + 1) * vocabulary);
    return values.indexOf(Math.max(...values));
  });
}

/** A difference that is no number is no small one. */
function distance(actual: Float32Array, expected: readonly number[]): number {
  if (actual.length !== expected.length) return Number.POSITIVE_INFINITY;
  return actual.reduce((worst, value, i) => {
    const apart = Math.abs(value - (expected[i] as number));
    return Number.isNaN(apart) ? Number.POSITIVE_INFINITY : Math.max(worst, apart);
  }, 0);
}
