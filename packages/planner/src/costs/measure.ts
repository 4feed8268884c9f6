import { BlockDependencyAccumulator, type CandidateGroup, tokenMask } from '@cqil/core';
import type { GroupResult, ModelParts, StreamBatch } from '../parts/index.js';
import { type ChannelMoments, channelMoments, hiddenChange } from './hidden-change.js';
import type { CostRecord } from './journal.js';
import type { BatchStates } from './reference.js';
import { sumByKind } from './tally.js';
import type { WindowBatch } from './windows.js';

/** A candidate and its index, which is what records name it by. */
export interface IndexedCandidate extends CandidateGroup {
  readonly index: number;
}

/**
 * Measures candidates that begin at one layer on one batch. They read the same state, so what their groups have in
 * common is computed once; and they are scored together, so the original's logits are computed once.
 *
 * @throws MetricError `ACTIVATION_NOT_FINITE` naming the layer; InferenceError; the signal's reason
 */
export async function measureFrom(
  parts: ModelParts,
  candidates: readonly IndexedCandidate[],
  at: { readonly batch: number; readonly first: number },
  batch: WindowBatch,
  original: BatchStates,
  options: { readonly skipFirst: number; readonly signal?: AbortSignal | undefined },
): Promise<CostRecord> {
  const { skipFirst, signal } = options;
  const shared = parts.sharing(original.inputs[at.first] as StreamBatch, { signal });
  const last = original.inputs.at(-1) as StreamBatch;
  const moments = channelMoments(last, skipFirst);
  const finals: StreamBatch[] = [];
  const cheap: Omit<CostRecord['candidates'][number], 'kinds'>[] = [];
  for (const { index, layers, bypass } of candidates) {
    const group = await shared.group(layers, bypass);
    let state = group.output;
    for (let layer = at.first + layers.length; layer < parts.layers.length; layer++) {
      state = await parts.layer(layer, state, { signal });
    }
    finals.push(state);
    cheap.push({
      candidate: index,
      ...hiddenSum(moments, channelMoments(state, skipFirst)),
      ...dependencySums(layers, group, original, skipFirst),
    });
  }
  const scores = await parts.score(last, finals, batch.ids, { signal });
  const { loss } = scores.reference;
  // Against itself, only the loss counts.
  const base = sumByKind(batch.kinds, new Float32Array(loss.length), { loss, kl: loss, agrees: loss });
  return {
    ...at,
    original: base.map(({ kind, tokens, crossEntropy }) => ({ kind, tokens, loss: crossEntropy })),
    candidates: cheap.map((found, k) => ({
      ...found,
      kinds: sumByKind(batch.kinds, loss, scores.others[k]!),
    })),
  };
}

function hiddenSum(
  original: readonly ChannelMoments[],
  changed: readonly ChannelMoments[],
): { hidden: number; windows: number } {
  const hidden = original.reduce((sum, moments, w) => sum + hiddenChange(moments, changed[w]!), 0);
  return { hidden, windows: original.length };
}

/** How far each member's contribution turns when it reads what the group reads: see `MeasuredCandidate`. */
function dependencySums(
  layers: readonly number[],
  group: GroupResult,
  original: BatchStates,
  skipFirst: number,
): { dependency: number[]; positions: number } {
  let positions = 0;
  const dependency = layers.slice(1).map((layer, j) => {
    const whole = original.contributions[layer] as StreamBatch;
    const [batch, sequence, hidden] = whole.dims;
    const mask = tokenMask({ batch, sequence, skipFirst });
    const { distance, tokens } = new BlockDependencyAccumulator({ hidden })
      .add(whole.data, group.contributions[j + 1]!.data, { mask })
      .finish();
    positions = tokens;
    return distance * tokens;
  });
  return { dependency, positions };
}
