import os from 'node:os';
import {
  type Kernel,
  kernelShapes,
  type MachineProfile,
  type MeasuredAttention,
  type MeasuredElementwise,
  type MeasuredProduct,
  type ModelShape,
  type OnProgress,
  type SmallOperator,
  UsageError,
} from '@cqil/core';
import { machine } from '../bench/machine.js';
import { spread } from '../bench/spread.js';
import { InferenceError } from '../errors.js';
import { isBindable } from '../session/native/bindable-session.js';
import { openSession } from '../session/open.js';
import type { Session } from '../session/types.js';
import { elementCount, type TensorValue } from '../tensor/types.js';
import {
  type AttentionShape,
  attentionGraph,
  chainGraph,
  laggedGraph,
  normsGraph,
  type OperatorShape,
  operatorsGraph,
  type ProductShape,
  productsGraph,
  spacedGraph,
  WEIGHT_BITS,
} from './graphs.js';

/** A norm over the stream. */
export interface NormShape {
  readonly rows: number;
  readonly width: number;
}

export interface MeasureOptions {
  /** Products to time; those of `workOf` for the model at hand, say. */
  readonly products: readonly ProductShape[];
  /** Attentions to time; without any, what they take is worked out from bytes and operations. */
  readonly attentions?: readonly AttentionShape[];
  /** Norms to time: so many tokens of a stream of so many elements; without any, they are taken for element-wise kernels. */
  readonly norms?: readonly NormShape[];
  /** Activations, splits and sums to time; without any, they are taken for element-wise kernels. */
  readonly operators?: readonly OperatorShape[];
  /** Threads inside an operator; all that the process may use when absent. */
  readonly threads?: number | undefined;
  /**
   * So many sessions run each graph at the same time, as devices that share a memory do; one when absent. Times are of the
   * last of them to end.
   */
  readonly sessions?: number | undefined;
  /** Timed runs of each graph at most; 15 when absent. */
  readonly repeats?: number | undefined;
  /** Seconds after which a graph has been timed enough, where four runs have been made; 1 when absent. */
  readonly secondsEach?: number | undefined;
  /** Bytes of weights that a graph of products holds at least, so that no cache holds them; 64 MiB when absent. */
  readonly spreadBytes?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: OnProgress | undefined;
}

/** What a node costs is told by products with so many nodes behind each, beside none. */
const SPACED = { products: 96, nodes: 4, pairs: 200 } as const;
/** Runs before any is timed: JavaScript's compiler has then seen what there is. */
const WARMUP = 40;
/** Products or attentions a graph at least and at most. */
const COUNTS = [4, 96] as const;
/** Elements of the element-wise kernels that are timed, from a token's in a small model to a prompt's in a large one. */
const ELEMENTS = [1024, 16_384, 131_072, 1_048_576] as const;
const ELEMENTWISE_NODES = 32;
/** What a model's small kernels read was pushed out of the nearest cache since, but not of all: so many bytes go round. */
const LAG_BYTES = 6 * 2 ** 20;
/** Values that go round at least and at most. */
const LAGS = [4, 16] as const;
/** Operators that are timed, beside none. */
const OPERATORS = 8;
const OPERATOR_PAIRS = 40;

/** Runs a graph once. */
type Run = () => Promise<unknown>;

/**
 * Measures this machine's CPU as ONNX Runtime uses it into a profile: what a run costs, what a node costs, what
 * element-wise kernels cost by size, and what products and attentions cost by shape when their weights and caches come
 * from memory. Graphs are a few nodes; nothing of a model is run.
 *
 * Times are first quartiles: other work on the machine makes them longer, never shorter. With one thread they are of the
 * processor's time, from which other work takes less.
 *
 * @throws UsageError `PROFILE_OPTIONS`; what `openSession` throws; the signal's reason
 */
export async function measureProfile(options: MeasureOptions): Promise<MachineProfile> {
  const {
    products,
    attentions = [],
    norms = [],
    operators = [],
    sessions: copies = 1,
    repeats = 15,
    secondsEach = 1,
    signal,
    onProgress,
  } = options;
  const { spreadBytes = 64 * 2 ** 20 } = options;
  const threads = options.threads ?? os.availableParallelism();
  check(options);
  const { cpu, onnxruntime, memoryBytes } = machine();
  const ofProcessor = threads === 1 && copies === 1;
  const clock = ofProcessor ? processorSeconds : wallSeconds;
  const graphs = [ELEMENTS, norms, operators, products, attentions];
  const total = graphs.reduce((sum, { length }) => sum + length, 1);
  let done = 0;
  const report = () => onProgress?.({ phase: 'measuring kernels', done: done++, total, unit: 'graphs' });
  report();

  /** All sessions of a graph, run at once. */
  const open = async (graph: Uint8Array, prepare: (session: Session) => Run) => {
    const sessions = await openAll(Array.from({ length: copies }, () => openSession(graph, { threads })));
    const dispose = () => Promise.all(sessions.map((session) => session.dispose()));
    try {
      const runs = sessions.map(prepare);
      return { run: () => Promise.all(runs.map((run) => run())), dispose };
    } catch (error) {
      await dispose();
      throw error;
    }
  };

  /** @param prepare what a run of the opened graph is */
  const time = async (
    graph: Uint8Array,
    prepare: (session: Session) => Run,
    most = repeats,
  ): Promise<number> => {
    const { run, dispose } = await open(graph, prepare);
    try {
      const times: number[] = [];
      const begin = performance.now();
      for (let i = -2; i < most; i++) {
        signal?.throwIfAborted();
        if (times.length >= 4 && performance.now() - begin > 1000 * secondsEach) break;
        const start = clock();
        await run();
        if (i >= 0) times.push(clock() - start);
      }
      return spread(times).q1;
    } finally {
      await dispose();
    }
  };
  const fed =
    (...dims: number[]) =>
    (session: Session): Run => {
      const feeds = { x: filled(dims, 0.5) };
      return () => session.run(feeds);
    };

  /** What a graph takes more than another: the two in turn, so that what the machine does else falls on both. */
  const difference = async (
    without: Uint8Array,
    with_: Uint8Array,
    dims: readonly number[],
    pairs: number,
  ): Promise<number> => {
    const opened = await openAll([without, with_].map((graph) => open(graph, fed(...dims))));
    try {
      const differences: number[] = [];
      for (let i = -2; i < pairs; i++) {
        signal?.throwIfAborted();
        const times: number[] = [];
        for (const { run } of opened) {
          const start = clock();
          await run();
          times.push(clock() - start);
        }
        if (i >= 0) differences.push(times[1]! - times[0]!);
      }
      return spread(differences).median;
    } finally {
      await Promise.all(opened.map(({ dispose }) => dispose()));
    }
  };
  const few = chainGraph(1);
  await time(few, fed(1, 8), WARMUP);
  const runSeconds = await time(few, fed(1, 8));
  const spaced = [0, SPACED.nodes].map((nodes) => spacedGraph(SPACED.products, nodes));
  const nodes = await difference(spaced[0]!, spaced[1]!, [1, 256], SPACED.pairs);
  const launchSeconds = Math.max(0, nodes / (SPACED.products * SPACED.nodes));
  report();
  // At least a tenth of what was measured, should the start of nodes be as dear as their work.
  const each = (whole: number, count: number) =>
    Math.max((whole - runSeconds) / count - launchSeconds, whole / count / 10);

  const elementwise: MeasuredElementwise[] = [];
  for (const elements of ELEMENTS) {
    const lag = lagOf(4 * elements);
    const whole = await time(laggedGraph(elements, lag, ELEMENTWISE_NODES), fed(1));
    // Two values in, one out; what goes round is made by nodes of the same kind.
    elementwise.push({ bytes: 3 * 4 * elements, seconds: each(whole, lag + ELEMENTWISE_NODES) });
    report();
  }
  const measuredNorms: MeasuredElementwise[] = [];
  for (const { rows, width } of norms) {
    const whole = await time(normsGraph(rows, width, ELEMENTWISE_NODES), fed(1, rows, width));
    // Two values in, two out.
    measuredNorms.push({ bytes: 4 * 4 * rows * width, seconds: each(whole, ELEMENTWISE_NODES) });
    report();
  }
  const measuredOperators: Partial<Record<SmallOperator, MeasuredElementwise[]>> = {};
  for (const shape of operators) {
    const [without, with_] = [true, false].map((none) => operatorsGraph(shape, OPERATORS, none));
    const whole = await difference(without!, with_!, [1], OPERATOR_PAIRS);
    const beside = NODES[shape.operator] * launchSeconds;
    const seconds = Math.max(whole / OPERATORS - beside, whole / OPERATORS / 10, 1e-9);
    measuredOperators[shape.operator] = [
      ...(measuredOperators[shape.operator] ?? []),
      { bytes: 4 * movedBy(shape), seconds },
    ].toSorted((a, b) => a.bytes - b.bytes);
    report();
  }
  const measured: MeasuredProduct[] = [];
  for (const shape of products) {
    const { m, k, n, weights } = shape;
    const weightBits = WEIGHT_BITS[weights];
    const count = countFor(spreadBytes, (k * n * weightBits) / 8);
    const whole = await time(productsGraph(shape, count), fed(m, k));
    measured.push({ type: 'float32', m, k, n, weightBits, seconds: each(whole, count) });
    report();
  }
  const attention: MeasuredAttention[] = [];
  for (const shape of attentions) {
    const room = roomOf(shape);
    const count = countFor(spreadBytes / 4, 8 * shape.kvHeads * shape.headDim * room);
    const whole = await time(attentionGraph(shape, room, count), (session) => inPlace(session, shape, count));
    attention.push({ type: 'float32', ...shape, seconds: each(whole, count) });
    report();
  }
  const rates = measured.map(({ m, k, n, seconds }) => (2 * m * k * n) / seconds);
  const bandwidths = measured.map(({ k, n, weightBits, seconds }) => (k * n * weightBits) / 8 / seconds);
  return {
    version: 1,
    name: `${cpu}, ${threads} threads${copies === 1 ? '' : `, ${copies} sessions at once`}`,
    sources: [
      `measured: ONNX Runtime ${onnxruntime}, ${threads} threads${copies === 1 ? '' : `, ${copies} sessions at once`}, first quartiles of up to ${repeats} runs, ${ofProcessor ? "processor's time" : 'time on the clock'}; load ${os.loadavg()[0]!.toFixed(1)}`,
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
        ...(attention.length === 0 ? {} : { attention }),
        elementwise,
        ...(operators.length === 0 ? {} : { operators: measuredOperators }),
        ...(measuredNorms.length === 0 ? {} : { norms: measuredNorms.toSorted((a, b) => a.bytes - b.bytes) }),
      },
    ],
    links: [],
  };
}

function wallSeconds(): number {
  return performance.now() / 1000;
}

/** Of this process: one thread computes, and the others wait. */
function processorSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

function filled(dims: readonly number[], value: number): TensorValue {
  return { type: 'float32', dims, data: new Float32Array(elementCount(dims)).fill(value) };
}

/** So many values that their bytes are those that go round, within bounds. */
function lagOf(bytes: number): number {
  return Math.min(LAGS[1], Math.max(LAGS[0], Math.ceil(LAG_BYTES / bytes)));
}

/** Nodes that an operator makes `operatorsGraph` longer by, those that look at what it gives among them. */
const NODES: Readonly<Record<SmallOperator, number>> = { activation: 1, split: 2, sum: 2 };

/** Elements that an operator reads and writes. */
function movedBy({ operator, rows, width, block }: OperatorShape): number {
  return operator === 'sum' ? rows * (width + width / block) : 2 * rows * width;
}

/** So many that their bytes come from memory, within bounds. */
function countFor(spreadBytes: number, bytes: number): number {
  return Math.min(COUNTS[1], Math.max(COUNTS[0], Math.ceil(spreadBytes / bytes)));
}

/** Positions of the caches that are timed. */
function roomOf({ tokens, context }: AttentionShape): number {
  return context + tokens + 64;
}

/** Runs that append to the same caches again and again, at the same place. */
function inPlace(session: Session, shape: AttentionShape, count: number): Run {
  const { tokens, context, heads, kvHeads, headDim } = shape;
  if (!isBindable(session)) {
    throw new InferenceError(
      'ORT_LIBRARY_UNUSABLE',
      'Attentions can only be timed through the native binding.',
      {
        expected: 'the native binding',
        found: session.binding,
        hint: 'Run `cqil doctor`, or measure without attentions.',
      },
    );
  }
  const all = context + tokens;
  const cache = [1, kvHeads, roomOf(shape), headDim];
  const caches = Array.from({ length: count }, (_, i) =>
    ['k', 'v'].map((name) => [`${name}${i}`, session.resident(filled(cache, 0.01))] as const),
  ).flat();
  const binding = session.bind(Object.fromEntries(caches), {
    ...Object.fromEntries(caches.map(([name, tensor]) => [`p${name}`, tensor])),
    ...Object.fromEntries(Array.from({ length: count }, (_, i) => [`y${i}`, 'tensor' as const])),
  });
  const feeds: Record<string, TensorValue> = {
    x: filled([1, tokens, (heads + 2 * kvHeads) * headDim], 0.1),
    lengths: { type: 'int32', dims: [1], data: Int32Array.of(all - 1) },
    total: { type: 'int32', dims: [], data: Int32Array.of(all) },
    bias: filled([1, 1, tokens, all], 0),
  };
  return () => session.runBound(binding, feeds);
}

/** All of them, or none: where one cannot be opened, those that were are disposed. */
async function openAll<T extends { dispose(): Promise<unknown> }>(
  opening: readonly Promise<T>[],
): Promise<T[]> {
  const settled = await Promise.allSettled(opening);
  const opened = settled.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
  const failed = settled.find((one) => one.status === 'rejected');
  if (failed === undefined) return opened;
  await Promise.all(opened.map((one) => one.dispose()));
  throw failed.reason;
}

/** What `measureProfile` is to measure for a model. */
export interface Work {
  readonly products: readonly ProductShape[];
  readonly attentions: readonly AttentionShape[];
  readonly norms: readonly NormShape[];
  readonly operators: readonly OperatorShape[];
}

/**
 * The products, attentions, norms and other small operators of a decoder: for a decoding step, for a prompt, and for a step behind a long one; of
 * single layers and of several side by side as one.
 *
 * @param promptTokens default 128
 * @param widths layers side by side (default 1, 2 and 4)
 */
export function workOf(shape: ModelShape, promptTokens = 128, widths: readonly number[] = [1, 2, 4]): Work {
  const step = { tokens: 1, context: promptTokens };
  const passes = [step, ...(promptTokens === 1 ? [] : [{ tokens: promptTokens, context: 0 }])];
  const { products, attentions } = kernelShapes(shape, passes, widths);
  const behind = kernelShapes(shape, [{ ...step, context: 8 * promptTokens }], widths);
  // The operator takes heads of such sizes only.
  const timed = shape.headDim % 16 === 0 ? [...attentions, ...behind.attentions] : [];
  const norms = passes.map(({ tokens }) => ({ rows: tokens, width: shape.hidden }));
  return {
    products: products.map(productOf),
    attentions: timed,
    norms,
    operators: promptTokens === 1 ? [] : operatorsOf(shape, promptTokens, widths),
  };
}

/** Of the prompt only: those of a token take next to nothing but their start. */
function operatorsOf(
  { hidden, heads, headDim, ffn, kernels, offsets }: ModelShape,
  rows: number,
  widths: readonly number[],
): OperatorShape[] {
  const ends = [...new Set([Math.min(...widths), Math.max(...widths)])];
  const activations = ends.flatMap((layers): OperatorShape[] => [
    { operator: 'activation', rows, width: layers * ffn },
    ...(kernels.activation < 3 ? [] : [{ operator: 'split' as const, rows, width: 2 * layers * ffn }]),
  ]);
  if (offsets === undefined) return activations;
  const { block } = offsets;
  const inputs = new Set([hidden, ...ends.flatMap((layers) => [layers * heads * headDim, layers * ffn])]);
  const sums = [...inputs]
    .filter((width) => width % block === 0)
    .map((width): OperatorShape => ({ operator: 'sum', rows, width, block }));
  return [...activations, ...sums];
}

/** Weights of so many bits are measured as the next kind that there are kernels for. */
function productOf({ m, k, n, weightBits }: NonNullable<Kernel['product']>): ProductShape {
  const weights = weightBits < 7 ? 'int4' : weightBits < 13 ? 'int8' : 'float32';
  return { m, k, n, weights };
}

function check({
  products,
  attentions = [],
  operators = [],
  threads = 1,
  sessions = 1,
  repeats = 4,
  spreadBytes = 1,
}: MeasureOptions): void {
  const whole = (value: number, least: number) => Number.isSafeInteger(value) && value >= least;
  const wrong =
    products.find(
      ({ m, k, n, weights }) =>
        !whole(m, 1) || !whole(k, 1) || !whole(n, 1) || (weights !== 'float32' && k % 32 !== 0),
    ) ??
    attentions.find(
      ({ tokens, context, heads, kvHeads, headDim }) =>
        !whole(tokens, 1) ||
        !whole(context, 0) ||
        !whole(kvHeads, 1) ||
        !whole(heads / kvHeads, 1) ||
        !whole(headDim / 16, 1),
    ) ??
    operators.find(
      ({ operator, rows, width, block = 1 }) =>
        !whole(rows, 1) || !whole(width / (operator === 'split' ? 2 : 1), 1) || !whole(width / block, 1),
    );
  if (
    products.length > 0 &&
    wrong === undefined &&
    whole(threads, 1) &&
    whole(sessions, 1) &&
    whole(repeats, 4) &&
    spreadBytes > 0
  ) {
    return;
  }
  throw new UsageError('PROFILE_OPTIONS', 'These options measure nothing.', {
    expected:
      'at least one product of whole sizes (k a multiple of 32 for int4 and int8), attentions of whole sizes (heads a multiple of the key-value heads, their size one of 16), operators of whole sizes (splits in two, sums over whole blocks), 1 thread, 1 session, 4 repeats',
    found:
      wrong === undefined
        ? `${products.length} products, ${threads} threads, ${sessions} sessions, ${repeats} repeats`
        : JSON.stringify(wrong),
  });
}
