import os from 'node:os';
import { type MachineProfile, type MeasuredProduct, type OnProgress, UsageError } from '@cqil/core';
import { machine } from '../bench/machine.js';
import { spread } from '../bench/spread.js';
import { openSession } from '../session/open.js';
import { elementCount } from '../tensor/types.js';
import { chainGraph, type ProductShape, productsGraph, WEIGHT_BITS } from './graphs.js';

export interface MeasureOptions {
  /** Products to time; those of `productsOf` for the models at hand, say. */
  readonly products: readonly ProductShape[];
  /** Threads inside an operator; all that the process may use when absent. */
  readonly threads?: number | undefined;
  /** Timed runs of each graph at most; 15 when absent. */
  readonly repeats?: number | undefined;
  /** Bytes of weights that a graph of products holds at least, so that no cache holds them; 64 MiB when absent. */
  readonly spreadBytes?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: OnProgress | undefined;
}

/** Seconds after which a graph has been timed enough, where four runs have been made. */
const ENOUGH_SECONDS = 1;
/** Nodes of the two chains that launch and run are told apart by. */
const CHAINS = [8, 208] as const;
/** Products a graph at least and at most. */
const COUNTS = [4, 96] as const;

/**
 * Measures this machine's CPU as ONNX Runtime uses it into a profile: what a run costs, what a node costs, and what
 * products cost by shape when their weights come from memory. Graphs are a few nodes; nothing of a model is run.
 *
 * Times are first quartiles: other work on the machine makes them longer, never shorter.
 *
 * @throws UsageError `PROFILE_OPTIONS`; what `openSession` throws; the signal's reason
 */
export async function measureProfile(options: MeasureOptions): Promise<MachineProfile> {
  const { products, repeats = 15, spreadBytes = 64 * 2 ** 20, signal, onProgress } = options;
  const threads = options.threads ?? os.availableParallelism();
  check(options);
  const { cpu, onnxruntime, memoryBytes } = machine();
  const total = products.length + 1;
  const report = (done: number) => onProgress?.({ phase: 'measuring products', done, total, unit: 'graphs' });
  report(0);

  const time = async (graph: Uint8Array, dims: readonly number[]): Promise<number> => {
    const session = await openSession(graph, { threads });
    try {
      const data = new Float32Array(elementCount(dims)).fill(0.5);
      const feeds = { x: { type: 'float32' as const, dims, data } };
      const times: number[] = [];
      const begin = performance.now();
      for (let i = -2; i < repeats; i++) {
        signal?.throwIfAborted();
        const start = performance.now();
        if (times.length >= 4 && start - begin > 1000 * ENOUGH_SECONDS) break;
        await session.run(feeds);
        if (i >= 0) times.push((performance.now() - start) / 1000);
      }
      return spread(times).q1;
    } finally {
      await session.dispose();
    }
  };

  const [short, long] = [
    await time(chainGraph(CHAINS[0]), [1, 8]),
    await time(chainGraph(CHAINS[1]), [1, 8]),
  ];
  const launchSeconds = Math.max(0, (long - short) / (CHAINS[1] - CHAINS[0]));
  const runSeconds = Math.max(0, short - CHAINS[0] * launchSeconds);
  report(1);

  const measured: MeasuredProduct[] = [];
  for (const [index, shape] of products.entries()) {
    const { m, k, n, weights } = shape;
    const weightBits = WEIGHT_BITS[weights];
    const wanted = Math.ceil(spreadBytes / ((k * n * weightBits) / 8));
    const count = Math.min(COUNTS[1], Math.max(COUNTS[0], wanted));
    const whole = await time(productsGraph(shape, count), [m, k]);
    // At least a tenth of what was measured, should the start of nodes be as dear as their work.
    const seconds = Math.max((whole - runSeconds) / count - launchSeconds, whole / count / 10);
    measured.push({ type: 'float32', m, k, n, weightBits, seconds });
    report(index + 2);
  }
  const rates = measured.map(({ m, k, n, seconds }) => (2 * m * k * n) / seconds);
  const bandwidths = measured.map(({ k, n, weightBits, seconds }) => (k * n * weightBits) / 8 / seconds);
  return {
    version: 1,
    name: `${cpu}, ${threads} threads`,
    sources: [
      `measured: ONNX Runtime ${onnxruntime}, ${threads} threads, first quartiles of up to ${repeats} runs; load ${os.loadavg()[0]!.toFixed(1)}`,
    ],
    devices: [
      {
        id: '0',
        name: cpu,
        kind: 'cpu',
        memoryBytes,
        peakFlops: { float32: Math.max(...rates) },
        computeEfficiency: 1,
        memoryBytesPerSecond: Math.max(...bandwidths),
        memoryEfficiency: [{ bytes: 1, share: 1 }],
        launch: 'serial',
        launchSeconds,
        kernelSeconds: 0,
        runSeconds,
        products: measured,
      },
    ],
    links: [],
  };
}

/**
 * The products of a decoder: q and o, k and v, q, k and v packed, gate and up, down, each for a decoding step and for a
 * prompt, and the output matrix.
 *
 * @param rows tokens at once (default 1 and 64)
 */
export function productsOf(
  model: {
    readonly hidden: number;
    readonly heads: number;
    readonly kvHeads: number;
    readonly headDim: number;
    readonly ffn: number;
    readonly vocabulary: number;
  },
  weights: ProductShape['weights'],
  rows: readonly number[] = [1, 64],
): ProductShape[] {
  const { hidden, heads, kvHeads, headDim, ffn, vocabulary } = model;
  const sizes: [k: number, n: number][] = [
    [hidden, heads * headDim],
    [hidden, kvHeads * headDim],
    [hidden, (heads + 2 * kvHeads) * headDim],
    [hidden, ffn],
    [ffn, hidden],
  ];
  return [
    ...rows.flatMap((m) => sizes.map(([k, n]) => ({ m, k, n, weights }))),
    // Logits are wanted of one position.
    { m: 1, k: hidden, n: vocabulary, weights },
  ];
}

function check({ products, threads = 1, repeats = 4, spreadBytes = 1 }: MeasureOptions): void {
  const whole = (value: number, least: number) => Number.isSafeInteger(value) && value >= least;
  const wrong = products.find(
    ({ m, k, n, weights }) =>
      !whole(m, 1) || !whole(k, 1) || !whole(n, 1) || (weights === 'int4' && k % 32 !== 0),
  );
  if (
    products.length > 0 &&
    wrong === undefined &&
    whole(threads, 1) &&
    whole(repeats, 4) &&
    spreadBytes > 0
  ) {
    return;
  }
  throw new UsageError('PROFILE_OPTIONS', 'These options measure nothing.', {
    expected: 'at least one product of whole sizes (k a multiple of 32 for int4), 1 thread, 4 repeats',
    found:
      wrong === undefined
        ? `${products.length} products, ${threads} threads, ${repeats} repeats`
        : JSON.stringify(wrong),
  });
}
