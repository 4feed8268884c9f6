import type { StreamBatch } from '../parts/index.js';

/** Mean and standard deviation of each channel over the positions of one window that count. */
export interface ChannelMoments {
  readonly mean: Float64Array;
  readonly deviation: Float64Array;
}

/**
 * @param skipFirst positions at the start of each window that do not count: their activations are of another scale
 * @returns by window of the batch
 */
export function channelMoments(state: StreamBatch, skipFirst: number): ChannelMoments[] {
  const [batch, sequence, hidden] = state.dims;
  const count = sequence - skipFirst;
  return Array.from({ length: batch }, (_, window) => {
    const mean = new Float64Array(hidden);
    const deviation = new Float64Array(hidden);
    const from = (window * sequence + skipFirst) * hidden;
    const to = (window + 1) * sequence * hidden;
    for (let at = from; at < to; at += hidden) {
      for (let c = 0; c < hidden; c++) mean[c]! += state.data[at + c]!;
    }
    for (let c = 0; c < hidden; c++) mean[c]! /= count;
    for (let at = from; at < to; at += hidden) {
      for (let c = 0; c < hidden; c++) deviation[c]! += (state.data[at + c]! - mean[c]!) ** 2;
    }
    for (let c = 0; c < hidden; c++) deviation[c] = Math.sqrt(deviation[c]! / count);
    return { mean, deviation };
  });
}

/**
 * How far a change moves the final hidden state, without labels or logits:
 *
 *     (‖μ' − μ‖₂ + ‖σ' − σ‖₂) / ‖σ‖₂
 *
 * with μ and σ the mean and standard deviation of each channel over positions, σ' and μ' those of the changed model.
 * After LD-Pruner's score of an operator (arXiv 2404.11936), which is the numerator over the latents of a diffusion
 * model; divided by ‖σ‖ it can be compared between models. 0 for an unchanged state, also where nothing varies.
 */
export function hiddenChange(original: ChannelMoments, changed: ChannelMoments): number {
  const moved = distance(original.mean, changed.mean) + distance(original.deviation, changed.deviation);
  if (moved === 0) return 0;
  // A state that is the same at all positions has no scale of its own.
  return moved / Math.max(norm(original.deviation), Number.EPSILON);
}

function distance(a: Float64Array, b: Float64Array): number {
  return norm(a.map((value, i) => value - b[i]!));
}

function norm(values: Float64Array): number {
  return Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));
}
