import { type OnProgress, type Plan, planSteps, validatePlan } from '@cqil/core';
import type { ModelParts, StreamBatch } from '../parts/index.js';
import type { ReferenceStreams } from './reference.js';
import { type KindMeans, type KindSums, type Means, meansOf, sumByKind } from './tally.js';

/** What a whole plan does to a model. */
export interface PlanCost extends Means {
  readonly kinds: readonly KindMeans[];
}

export interface PlanCostOptions {
  readonly signal?: AbortSignal;
  readonly onProgress?: OnProgress;
}

/** As `planCosts`, for one plan. */
export async function planCost(
  parts: ModelParts,
  plan: Plan,
  reference: ReferenceStreams,
  options: PlanCostOptions = {},
): Promise<PlanCost> {
  const [cost] = await planCosts(parts, [plan], reference, options);
  return cost as PlanCost;
}

/**
 * What plans cost, each as a whole: KL divergence to the original and change of cross-entropy, as means over tokens,
 * by kind of text as well. Plans that begin alike, with each other or with the original, share what they have in
 * common, and all share the reference's logits: ask for many at once.
 *
 * @param reference of the same model and the texts to measure on
 * @returns in the order of `plans`
 * @throws PlanError for a plan of another number of layers; MetricError `ACTIVATION_NOT_FINITE` naming the layer;
 *   InferenceError; the signal's reason
 */
export async function planCosts(
  parts: ModelParts,
  plans: readonly Plan[],
  reference: ReferenceStreams,
  options: PlanCostOptions = {},
): Promise<PlanCost[]> {
  for (const plan of plans) validatePlan(plan, { layers: parts.layers.length });
  const { signal, onProgress } = options;
  const sums: KindSums[][] = plans.map(() => []);
  const chains = plans.map(chainOf);
  // Neighbours in this order share the longest beginnings.
  const order = [...plans.keys()].sort((a, b) => compareChains(chains[a]!, chains[b]!) || a - b);
  const total = reference.batches.length * plans.length;
  let done = 0;
  for (const [index, batch] of reference.batches.entries()) {
    let before: Run | undefined;
    for (let from = 0; from < order.length; from += SCORED_TOGETHER) {
      const some = order.slice(from, from + SCORED_TOGETHER);
      const finals: StreamBatch[] = [];
      for (const at of some) {
        before = await runChain(parts, chains[at]!, reference, index, before, signal);
        finals.push(before.states.at(-1) as StreamBatch);
        onProgress?.({ phase: 'running plans', done: ++done, total, unit: 'batches' });
      }
      const scores = await parts.score(reference.final(index), finals, batch.ids, { signal });
      for (const [k, found] of scores.others.entries()) {
        sums[some[k]!]!.push(...sumByKind(batch.kinds, scores.reference.loss, found));
      }
    }
  }
  return sums.map((of) => meansOf(reference.kinds, of));
}

/** Plans whose final states are held at the same time. */
const SCORED_TOGETHER = 63;

interface Step {
  readonly layers: readonly number[];
  readonly bypass: Plan['groups'][number]['bypass'];
  readonly key: string;
}

/** A plan's steps, and the state behind each of them; those from before the first group are not there. */
interface Run {
  readonly chain: readonly Step[];
  readonly states: readonly (StreamBatch | undefined)[];
}

function chainOf(plan: Plan): Step[] {
  const bypasses = new Map(plan.groups.map((group) => [group.layers[0], group.bypass]));
  return planSteps(plan).map((layers) => {
    const bypass = bypasses.get(layers[0]) ?? 0;
    return { layers, bypass, key: `${layers.length}/${bypass}` };
  });
}

/** By the keys of the steps. Not by locale: the order decides what is computed from what. */
function compareChains(a: readonly Step[], b: readonly Step[]): number {
  const at = a.findIndex(({ key }, i) => key !== b[i]?.key);
  if (at === -1) return 0;
  const [left, right] = [a[at]?.key ?? '', b[at]?.key ?? ''];
  return left < right ? -1 : 1;
}

async function runChain(
  parts: ModelParts,
  chain: readonly Step[],
  reference: ReferenceStreams,
  batch: number,
  previous: Run | undefined,
  signal: AbortSignal | undefined,
): Promise<Run> {
  const states: (StreamBatch | undefined)[] = [];
  const plain = chain.findIndex(({ layers }) => layers.length > 1);
  // Up to the first group a step is a layer.
  const known = reference.before(batch, plain === -1 ? reference.layers : plain);
  let from = known.layer;
  let state = known.stream;
  const shared = chain.findIndex(({ key }, i) => key !== previous?.chain[i]?.key);
  const alike = previous === undefined ? 0 : shared === -1 ? chain.length : shared;
  for (let step = 0; step < alike; step++) states[step] = previous?.states[step];
  const last = states[alike - 1];
  if (alike > from && last !== undefined) {
    from = alike;
    state = last;
  }
  if (from === chain.length && plain === -1) states[chain.length - 1] = state;
  for (const [i, { layers, bypass }] of chain.slice(from).entries()) {
    state = await parts.group(layers, bypass, state, { signal });
    states[from + i] = state;
  }
  return { chain, states };
}
