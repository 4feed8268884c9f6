import {
  DecoderSession,
  openPartitioned,
  type SessionOptions,
  type StepCache,
  type StepModel,
} from '@cqil/runtime-gpu';
import type { Model } from '../../onnx/index.js';
import { arithmeticOf, BASE_TOLERANCE } from '../../verify/tolerance.js';

/** How far the logits of a partition lie from those of the graph that it was cut from. */
export interface PartitionParity {
  readonly ok: boolean;
  /** The largest difference of two logits. */
  readonly largest: number;
  /** Which step it was found in. */
  readonly worst: string;
  /** What was allowed. */
  readonly limit: number;
  /** Steps that were compared. */
  readonly steps: number;
}

/** Prompts, single tokens, several tokens behind a cache, and two sequences of different length. */
const CASES: readonly (readonly (readonly (readonly number[])[])[])[] = [
  [[[1, 2, 3, 4, 5]], [[6]], [[7]], [[3, 1, 2]], [[4]]],
  [
    [
      [5, 3, 1, 2],
      [2, 7],
    ],
    [[1], [4]],
  ],
];

/** Feeds the same tokens to a partition and to the whole graph, on the same caches. */
export async function partitionParity(
  model: Model,
  file: string,
  folder: string,
  options: { readonly session: SessionOptions; readonly signal: AbortSignal | undefined },
): Promise<PartitionParity> {
  const whole = await DecoderSession.open(file, { threads: 1, ...options.session });
  try {
    const parted = await openPartitioned(folder, { transport: 'async' });
    try {
      return await compare(whole, parted, BASE_TOLERANCE[arithmeticOf(model)], options.signal);
    } finally {
      await parted.dispose();
    }
  } finally {
    await whole.dispose();
  }
}

async function compare(
  whole: StepModel,
  parted: StepModel,
  tolerance: number,
  signal: AbortSignal | undefined,
): Promise<PartitionParity> {
  let largest = 0;
  let worst = 'none';
  let scale = 1;
  let steps = 0;
  for (const [row, sequence] of CASES.entries()) {
    const caches: (StepCache | undefined)[] = [undefined, undefined];
    for (const [step, inputIds] of sequence.entries()) {
      const results = [];
      for (const [i, decoder] of [whole, parted].entries()) {
        const cache = caches[i];
        const request = {
          inputIds,
          ...(cache === undefined ? {} : { cache }),
          ...(signal ? { signal } : {}),
        };
        const result = await decoder.forward(request);
        caches[i] = result.cache;
        results.push(result.logits.data);
      }
      const [expected, found] = results as [Float32Array, Float32Array];
      steps += 1;
      let difference = expected.length === found.length ? 0 : Number.POSITIVE_INFINITY;
      for (let i = 0; i < expected.length; i++) {
        scale = Math.max(scale, Math.abs(expected[i]!));
        const distance = Math.abs(expected[i]! - found[i]!);
        if (!(distance <= difference))
          difference = Number.isNaN(distance) ? Number.POSITIVE_INFINITY : distance;
      }
      if (difference > largest || worst === 'none') worst = `step ${step + 1} of case ${row + 1}`;
      largest = Math.max(largest, difference);
    }
    for (const cache of caches) cache?.dispose();
  }
  const limit = tolerance * scale;
  return { ok: largest <= limit, largest, worst, limit, steps };
}
