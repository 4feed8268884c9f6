import { ModelFormatError, type OnProgress, UsageError } from '@cqil/core';
import type { SessionOptions } from '@cqil/runtime-gpu';
import { analyze } from '../../anatomy/index.js';
import { DataType, type Model, makeNode } from '../../onnx/index.js';
import { Names } from '../../rewrite/names.js';
import { weightError } from '../calibrate.js';
import { floatForm } from '../float-form.js';
import { withFloatTables } from '../float-tables.js';
import { matrixValues } from '../matrix-values.js';
import { labelOf } from '../place.js';
import { findSites, type LookupSite, type ProductSite } from '../sites.js';
import { type CodeBits, channelCodes, channelValues } from './codes.js';
import { QdqGraph } from './graph.js';
import type { MagnitudeHistogram } from './histogram.js';
import { constantReaders } from './left.js';
import { observe } from './observe.js';
import { CHANNEL_OPSET, checkOpset, raiseOpset, WIDE_OPSET } from './opset.js';
import { quantiseSums } from './residual.js';
import { rotateStream } from './rotate.js';
import { calibrationBatches, type QdqSettings, qdqSettings } from './settings.js';
import { type Step, stepOf } from './steps.js';
import { chooseStretches, type Stretch } from './stretches.js';
import { type ResidualSums, residualSums, withPlainSums } from './sums.js';
import type { QdqInput, QdqMatrix, QdqOptions, QdqResult, QdqRotation } from './types.js';

const TOKENS = 'input_ids';

/**
 * Puts a decoder into the form that integer engines ask for: `QuantizeLinear` and `DequantizeLinear` of the standard
 * around products and along the residual stream, with zero points of 0 and steps that are fixed by calibration text.
 *
 * - Matrices of products, the head's too, are signed bytes with a scale for each output. What they read has one step, in
 *   8 bits, or in 16 where 8 err too much.
 * - Everything that is added up at a residual connection, the joins of groups included, and every such sum has one
 *   common step, so that integers are added as they are: "AQD: Towards Accurate Fully-Quantized Object Detection",
 *   arXiv 2007.06919, section 3. See `chooseStretches` for where another step begins. In float32 the sum of two
 *   such values is exact to far less than a step, so any engine gives the integers' sum, saturated.
 * - Norms, attention and activation functions are left as they are, but for norms with the sum fused in, whose sum is
 *   taken out. A table whose rows begin the stream holds codes itself.
 *
 * Matrices and tables that are stored in codes already are taken for the numbers that they stand for.
 *
 * Memory: one batch's inputs of all products at once, and the new matrices.
 *
 * @param original not changed
 * @throws UsageError `QUANTISE_OPTIONS`, `QUANTISE_TEXT`, `QUANTISE_NOTHING`, `QDQ_ALREADY`, `QDQ_HALF`, `QDQ_OPSET`;
 *   ModelFormatError `QUANTISE_NOT_DECODER`; AnatomyError for graphs whose residual stream cannot be followed; what
 *   `openVariant` throws; the signal's reason
 */
export async function quantiseQdq(original: Model, options: QdqOptions): Promise<QdqResult> {
  const settings = qdqSettings(options);
  calibrationBatches(options, settings);
  return quantisePrepared(await prepareQdq(original, options), options);
}

/** What is known before any text is needed: that the options make sense, and the graph can be put into codes. */
export interface PreparedQdq {
  readonly graph: DecoderGraph;
  readonly rotation: QdqRotation;
}

/**
 * The first part of `quantiseQdq`, which needs no text.
 *
 * @param original not changed
 * @throws what `quantiseQdq` throws, but for `QUANTISE_TEXT`; `QDQ_OPSET` where 16 bits are sure to be needed
 */
export async function prepareQdq(
  original: Model,
  options: Omit<QdqOptions, 'calibration'>,
): Promise<PreparedQdq> {
  const settings = qdqSettings(options);
  const found = await prepared(original, settings);
  const wide = settings.residualBits === 16 || settings.inputBits === 16;
  checkOpset(found.graph.model, wide ? WIDE_OPSET : CHANNEL_OPSET);
  return found;
}

/**
 * The second part: fixes the steps by text.
 *
 * @param prepared with the same options; changed, so for one use
 */
export async function quantisePrepared(
  { graph, rotation }: PreparedQdq,
  options: QdqOptions,
): Promise<QdqResult> {
  const settings = qdqSettings(options);
  const seen = await observe(graph.model, graph.values, calibrationBatches(options, settings), {
    session: settings.session,
    signal: settings.signal,
    onProgress: options.onProgress,
  });
  return { ...(await quantiseWith(graph, choose(graph, seen, settings), options)), rotation };
}

/** The graph as it is quantised: its stream turned, where that is wanted and can be done. */
export async function prepared(
  original: Model,
  { session, rotate }: Pick<QdqSettings, 'session' | 'rotate'>,
): Promise<PreparedQdq> {
  const graph = await decoderGraph(original, session);
  if (rotate === 'off') return { graph, rotation: { applied: false, reason: 'left out as asked' } };
  const turned = rotateStream(graph);
  if ('obstacle' in turned) return { graph, rotation: { applied: false, reason: turned.obstacle } };
  return { graph: await decoderGraph(turned.model, session), rotation: { applied: true } };
}

/** A decoder's graph, and what in it is to be quantised. */
export interface DecoderGraph {
  /** Of its own, with fused sums taken out. */
  readonly model: Model;
  readonly residual: ResidualSums;
  /** The products by what they read, in topological order. */
  readonly products: ReadonlyMap<string, readonly ProductSite[]>;
  readonly lookups: readonly LookupSite[];
  /** All values that get a step, and the stream at each place. */
  readonly values: readonly string[];
}

export interface Choice {
  readonly residualBits: CodeBits;
  readonly stretches: readonly Stretch[];
  /** By the value that products read. */
  readonly inputs: ReadonlyMap<string, Step>;
}

export async function decoderGraph(original: Model, session?: SessionOptions): Promise<DecoderGraph> {
  refuseForeign(original);
  const source = await floatForm(withFloatTables(original), session);
  const model = withPlainSums(source);
  const anatomy = analyze(model);
  const sites = findSites(model, TOKENS, anatomy.logits);
  refuseUnfit(sites.products);
  const residual = residualSums(model, anatomy);
  const products = new Map<string, ProductSite[]>();
  for (const site of sites.products) products.set(site.input, [...(products.get(site.input) ?? []), site]);
  const made = model.graph.producers();
  const added = residual.sums.flatMap(({ terms, output }) => [...terms, output]);
  const values = [...products.keys(), ...added.filter((value) => made.has(value)), ...residual.streams];
  return { model, residual, products, lookups: sites.lookups, values: [...new Set(values)] };
}

export function choose(
  { residual, products }: DecoderGraph,
  seen: ReadonlyMap<string, MagnitudeHistogram>,
  settings: QdqSettings,
): Choice {
  const inputs = [...products.keys()].map(
    (name) => [name, inputStep(seen.get(name) as MagnitudeHistogram, settings)] as const,
  );
  return {
    residualBits: settings.residualBits,
    stretches: stretchesOf(residual, seen, settings),
    inputs: new Map(inputs),
  };
}

/** @param graph changed */
export async function quantiseWith(
  { model, residual, products, lookups }: DecoderGraph,
  { residualBits, stretches, inputs }: Choice,
  { signal, onProgress }: Pick<QdqOptions, 'signal' | 'onProgress'> = {},
): Promise<Omit<QdqResult, 'rotation'>> {
  const wide = residualBits === 16 || [...inputs.values()].some(({ bits }) => bits === 16);
  raiseOpset(model, wide ? WIDE_OPSET : CHANNEL_OPSET);
  const qdq = new QdqGraph(model, new Names(model));
  const candidates = constantReaders(model, residual.sums, TOKENS);
  const stored = await quantiseSums(qdq, residual.sums, stretches, residualBits, lookups);
  const taken = new Set([...products.values()].flat().map(({ node }) => node));
  const matrices = await quantiseProducts(qdq, products, inputs, signal, onProgress);
  qdq.finish();
  return {
    model,
    residual: { bits: residualBits, sums: residual.sums.length, stretches },
    inputs: [...inputs].map(([name, { step, bits, error }]): QdqInput => {
      const readers = (products.get(name) ?? []).map((site) => site.name);
      return { name, products: readers, bits, step, error };
    }),
    matrices,
    left: candidates
      .filter(({ node }) => !taken.has(node) && !stored.has(node))
      .map(({ name, reason }) => ({ name, reason })),
  };
}

function refuseForeign({ graph }: Model): void {
  if (!graph.feeds.some(({ name }) => name === TOKENS)) {
    throw new ModelFormatError('QUANTISE_NOT_DECODER', 'The model cannot be run from token ids.', {
      expected: `an input "${TOKENS}"`,
      found: `inputs ${graph.feeds.map(({ name }) => name).join(', ') || 'none'}`,
      hint: 'Only decoders with a cache can be quantised.',
    });
  }
  const static_ = graph.nodes.filter(({ opType }) => opType === 'QuantizeLinear').length;
  if (static_ === 0) return;
  throw new UsageError('QDQ_ALREADY', 'The model is quantised with static steps already.', {
    expected: 'a model in floating point, or with weights only in codes',
    found: `${static_} nodes "QuantizeLinear"`,
    hint: 'Give the model that it was made from: rounding what is rounded adds its errors.',
  });
}

function refuseUnfit(sites: readonly ProductSite[]): void {
  if (sites.length === 0) {
    throw new UsageError('QUANTISE_NOTHING', 'The model has no matrices that could be put into codes.', {
      expected: 'products with matrices in float32',
      found: 'none',
      hint: 'Give the model in floating point.',
    });
  }
  const half = sites.find(({ matrix }) => matrix.tensor.dataType === DataType.FLOAT16);
  if (half === undefined) return;
  throw new UsageError(
    'QDQ_HALF',
    'The model computes in float16, which cannot hold the sums of 16-bit codes.',
    {
      expected: 'a graph in float32',
      found: `"${half.name}" with a matrix in float16`,
      hint: 'Give the float32 graph of the model (--dtype fp32).',
    },
  );
}

function stretchesOf(
  { sums, streams }: ResidualSums,
  seen: ReadonlyMap<string, MagnitudeHistogram>,
  { residualBits, residualTolerance }: QdqSettings,
): readonly Stretch[] {
  const places = streams.map((stream, place) => {
    const here = sums.filter((sum) => sum.place === place);
    const names = new Set(here.flatMap(({ terms, output }) => [...terms, output]));
    const values = [...names].map((name) => seen.get(name)).filter((value) => value !== undefined);
    return { values, stream: seen.get(stream) as MagnitudeHistogram };
  });
  return chooseStretches(places, residualBits, residualTolerance);
}

function inputStep(histogram: MagnitudeHistogram, settings: QdqSettings): Step {
  const { inputBits, inputTolerance, stepRule } = settings;
  if (inputBits !== 'auto') return stepOf(histogram, inputBits, stepRule);
  const narrow = stepOf(histogram, 8, stepRule);
  return narrow.error <= inputTolerance ? narrow : stepOf(histogram, 16, 'max');
}

async function quantiseProducts(
  qdq: QdqGraph,
  inputs: ReadonlyMap<string, readonly ProductSite[]>,
  steps: ReadonlyMap<string, Step>,
  signal: AbortSignal | undefined,
  onProgress: OnProgress | undefined,
): Promise<QdqMatrix[]> {
  const { model, names } = qdq;
  const total = [...inputs.values()].reduce((sum, list) => sum + list.length, 0);
  const matrices: QdqMatrix[] = [];
  const made = new Map<ProductSite['node'], ReturnType<typeof makeNode>[]>();
  for (const [input, list] of inputs) {
    const { step, bits } = steps.get(input) as Step;
    const label = labelOf((list[0] as ProductSite).name);
    const value = qdq.pair(input, qdq.addStep(`${label}.input`, step, bits));
    for (const site of list) {
      signal?.throwIfAborted();
      onProgress?.({ phase: 'quantising', done: matrices.length, total, unit: 'matrices' });
      const { name, node, inFeatures, outFeatures, bias, head } = site;
      const weight = await matrixValues(site.matrix);
      const codes = channelCodes(weight, outFeatures);
      const matrix = qdq.matrix(labelOf(name), inFeatures, codes);
      const output = bias === undefined ? node.output : [names.fresh(`${node.output[0]}/product`)];
      const nodes = [makeNode('MatMul', [value, matrix], output, { name: node.name })];
      if (bias !== undefined) {
        const sum = { name: names.fresh(`${node.name}/Add`) };
        nodes.push(makeNode('Add', [output[0] as string, bias], node.output, sum));
      }
      made.set(node, nodes);
      const error = weightError(weight, channelValues(codes));
      matrices.push({ name, use: head ? 'head' : 'product', inFeatures, outFeatures, error });
    }
  }
  onProgress?.({ phase: 'quantising', done: total, total, unit: 'matrices' });
  model.graph.nodes = model.graph.nodes.flatMap((node) => made.get(node) ?? [node]);
  return matrices;
}
