import { ModelFormatError, UsageError } from '@cqil/core';
import { DataType, type Model } from '../onnx/index.js';
import { Products } from '../recover/products.js';
import { Names } from '../rewrite/names.js';
import { dequantiseBlocks, type QuantisedBlocks } from './blocks.js';
import { Calibration, DriftCorrection, type InputSums, outputError, weightError } from './calibrate.js';
import { roundCompensated } from './compensate.js';
import { addBlocks, blockLookup, blockProduct, type StoredBlocks } from './emit.js';
import { chooseFiner } from './finer.js';
import { floatForm } from './float-form.js';
import { floatValues, matrixValues, turned } from './matrix-values.js';
import { measuredNeeds } from './needs.js';
import { labelOf, putProduct, replaceNode } from './place.js';
import { type RoundOptions, roundToNearest } from './round.js';
import { type Settings, settingsOf } from './settings.js';
import { findSites, type LookupSite, type ProductSite } from './sites.js';
import type { QuantisedMatrix, QuantiseOptions, QuantiseResult, UnquantisedMatrix } from './types.js';

const TOKENS = 'input_ids';
const LOGITS = 'logits';

/**
 * Puts the matrices of a decoder into blocks of 4 or 8 bits, for ONNX Runtime's `MatMulNBits` and
 * `GatherBlockQuantized`: the products with a constant matrix, wherever they stand, the embedding, and the head, which
 * shares the embedding's blocks where it shared its table. Blocks of 4 bits get integer zero points, those of 8 none.
 *
 * With text to calibrate with, the products are taken in the order of the graph, each on the inputs that those before it,
 * already quantised, give it. Its matrix is first corrected to give on them what the original gives on its own inputs
 * (`DriftCorrection`), then rounded such that its outputs move least (`roundCompensated`).
 *
 * Memory: the new matrices, the inputs that the next products read of all tokens, and two squares of the largest
 * number of inputs, a few times, in float64.
 *
 * Matrices that are stored in codes already are taken for the numbers that they stand for, those of the layers and that of
 * the head: once is enough, since each time adds its errors. A table in blocks, and a head that shares its blocks, stay
 * in those.
 *
 * @param original not changed
 * @throws UsageError `QUANTISE_OPTIONS`, `QUANTISE_TEXT`, `QUANTISE_NOTHING`; UsageError `QUANTISE_RANGE`; MetricError
 *   `MATRIX_NOT_POSITIVE`; AnatomyError for models in codes that cannot be understood; what `openVariant` throws; the signal's reason
 */
export async function quantise(original: Model, options: QuantiseOptions = {}): Promise<QuantiseResult> {
  const settings = settingsOf(options);
  const source = await floatForm(original, settings.session);
  const logits = source.graph.outputs.find(({ name }) => name === LOGITS) ?? source.graph.outputs[0];
  if (logits === undefined || !source.graph.feeds.some(({ name }) => name === TOKENS)) {
    throw new ModelFormatError('QUANTISE_NOT_DECODER', 'The model cannot be run from token ids.', {
      expected: `an input "${TOKENS}" and logits`,
      found: `the inputs ${source.graph.feeds.map(({ name }) => name).join(', ')}`,
    });
  }
  const sites = findSites(source, TOKENS, logits.name);
  await using products = new Products(settings.session?.threads);
  const run = new Run(original, source, settings, products);
  const layers = run.usable(sites.products.filter(({ head }) => !head));
  if (layers.length === 0) throw nothing(source);
  const heads = run.usable(sites.products.filter(({ head }) => head));
  const finer = await run.choose(layers);
  await run.layers(layers, finer, (done, total) =>
    options.onProgress?.({ phase: 'quantising', done, total, unit: 'matrices' }),
  );
  await run.tables(sites.lookups, heads);
  return run.result();
}

interface Rounded {
  readonly blocks: QuantisedBlocks;
  readonly error: number;
}

class Run {
  readonly #model: Model;
  readonly #names: Names;
  readonly #matrices: QuantisedMatrix[] = [];
  readonly #left: UnquantisedMatrix[] = [];

  /** @param source the original with float matrices */
  constructor(
    readonly original: Model,
    readonly source: Model,
    readonly settings: Settings,
    readonly products: Products,
  ) {
    this.#model = source.clone();
    this.#names = new Names(this.#model);
  }

  /** The sites whose matrices divide into blocks; the others are noted. */
  usable(sites: readonly ProductSite[]): ProductSite[] {
    const { blockSize } = this.settings;
    return sites.filter(({ name, inFeatures }) => {
      if (inFeatures % blockSize === 0) return true;
      this.#leave(name, `${inFeatures} inputs do not divide into blocks of ${blockSize}`);
      return false;
    });
  }

  /** @param finer the names of those that get 8 bits whatever the others get */
  async layers(
    sites: readonly ProductSite[],
    finer: ReadonlySet<string>,
    onDone: (done: number, total: number) => void,
  ): Promise<void> {
    const { batches, session, signal, bits, method } = this.settings;
    const byInput = new Map<string, ProductSite[]>();
    for (const site of sites) byInput.set(site.input, [...(byInput.get(site.input) ?? []), site]);
    const calibration =
      batches.length === 0
        ? undefined
        : new Calibration(this.original, this.source, this.products, [...byInput.keys()], batches, session);
    onDone(0, sites.length);
    for (const list of byInput.values()) {
      signal?.throwIfAborted();
      const { inFeatures } = list[0] as ProductSite;
      const sums = await calibration?.next(this.#model, inFeatures, signal);
      const correction =
        sums === undefined || method === 'rtn' ? undefined : await DriftCorrection.of(this.products, sums);
      for (const site of list) {
        signal?.throwIfAborted();
        const rounded = await this.#round(site, finer.has(site.name) ? 8 : bits, sums, correction);
        putProduct(this.#model, this.#names, site, rounded.blocks, this.settings.accuracyLevel);
        this.#note(site.name, 'product', rounded);
        onDone(this.#matrices.length, sites.length);
      }
    }
  }

  /** The names of the products that get 8 bits in the place of 4: told by rounding all of them to nearest. */
  async choose(sites: readonly ProductSite[]): Promise<ReadonlySet<string>> {
    const { bits, finerShare, development, signal, accuracyLevel } = this.settings;
    if (bits === 8 || finerShare === 0) return new Set();
    const model = this.source.clone();
    const names = new Names(model);
    const matrices: QuantisedMatrix[] = [];
    for (const site of sites) {
      signal?.throwIfAborted();
      const rounded = await this.#round(site, 4, undefined, undefined);
      putProduct(model, names, site, rounded.blocks, accuracyLevel);
      matrices.push(describe(site.name, 'product', rounded));
    }
    const inEight = async (site: ProductSite) => (await this.#round(site, 8, undefined, undefined)).blocks;
    const needs =
      development === undefined
        ? new Map(matrices.map(({ name, error }) => [name, error]))
        : await measuredNeeds(this.original, model, sites, matrices, inEight, {
            ...this.settings,
            development,
          });
    return new Set(chooseFiner(matrices, needs, finerShare));
  }

  /** The embedding, and what gives the logits. */
  async tables(lookups: readonly LookupSite[], heads: readonly ProductSite[]): Promise<void> {
    const { embeddingBits: bits, blockSize, accuracyLevel } = this.settings;
    if (bits === 'float') return;
    const model = this.#model;
    const shared = new Map<string, { turned: boolean; rounded: Rounded; stored: StoredBlocks }>();
    for (const site of lookups) {
      const { name, tensor, rows, width } = site;
      if (width % blockSize !== 0) {
        this.#leave(name, `${width} values a row do not divide into blocks of ${blockSize}`);
        continue;
      }
      const values = await floatValues(tensor);
      const weight = site.turned ? values : turned(values, rows, width);
      const shape = { inFeatures: width, outFeatures: rows, matrix: { tensor } };
      const blocks = roundToNearest(weight, this.#options(shape, bits));
      const rounded = { blocks, error: weightError(weight, dequantiseBlocks(blocks)) };
      const stored = addBlocks(model, this.#names, labelOf(name), blocks);
      shared.set(tensor.name, { turned: site.turned, rounded, stored });
      replaceNode(model, site.node, blockLookup(model, this.#names, site, blocks, stored));
      this.#note(name, 'embedding', rounded);
    }
    for (const site of heads) {
      const { tensor, transposed, factor } = site.matrix;
      const table = factor === 1 ? shared.get(tensor.name) : undefined;
      const known = table?.turned === !transposed ? table : undefined;
      const rounded = known?.rounded ?? (await this.#round(site, bits, undefined, undefined));
      const stored = known?.stored ?? addBlocks(model, this.#names, labelOf(site.name), rounded.blocks);
      const nodes = blockProduct(model, this.#names, site, rounded.blocks, stored, accuracyLevel);
      replaceNode(model, site.node, nodes);
      this.#note(site.name, 'head', rounded);
    }
  }

  result(): QuantiseResult {
    return {
      model: this.#model,
      method: this.settings.method,
      matrices: this.#matrices,
      left: this.#left,
    };
  }

  async #round(
    site: ProductSite,
    bits: 4 | 8,
    sums: InputSums | undefined,
    correction: DriftCorrection | undefined,
  ): Promise<Rounded> {
    const weight = await matrixValues(site.matrix);
    const options = this.#options(site, bits);
    const wanted = (await correction?.apply(weight)) ?? weight;
    const blocks =
      sums === undefined || correction === undefined
        ? roundToNearest(weight, options)
        : await roundCompensated(this.products, wanted, sums.gram, {
            ...options,
            damping: this.settings.damping,
          });
    const back = dequantiseBlocks(blocks);
    const error =
      sums === undefined
        ? weightError(weight, back)
        : await outputError(this.products, sums.gram, site.inFeatures, wanted, back);
    return { blocks, error };
  }

  #options(
    {
      inFeatures,
      outFeatures,
      matrix,
    }: Pick<ProductSite, 'inFeatures' | 'outFeatures'> & {
      readonly matrix: Pick<ProductSite['matrix'], 'tensor'>;
    },
    bits: 4 | 8,
  ): RoundOptions {
    return {
      inFeatures,
      outFeatures,
      bits,
      blockSize: this.settings.blockSize,
      // 8 bits are fine enough without.
      asymmetric: bits === 4,
      scaleType: matrix.tensor.dataType === DataType.FLOAT16 ? 'float16' : 'float32',
    };
  }

  #note(name: string, use: QuantisedMatrix['use'], rounded: Rounded): void {
    this.#matrices.push(describe(name, use, rounded));
  }

  #leave(name: string, reason: string): void {
    this.#left.push({ name, reason });
  }
}

function nothing(source: Model): UsageError {
  const blocks = source.graph.nodes.filter(({ opType }) => opType === 'MatMulNBits').length;
  return new UsageError('QUANTISE_NOTHING', 'The model has no matrices that could be put into blocks.', {
    expected: 'products with matrices in float32 or float16 that divide into blocks',
    found: blocks > 0 ? `${blocks} products with matrices in blocks already` : 'none',
    hint: 'Give the model in floating point.',
  });
}

function describe(name: string, use: QuantisedMatrix['use'], { blocks, error }: Rounded): QuantisedMatrix {
  const { inFeatures, outFeatures, bits } = blocks;
  return { name, use, inFeatures, outFeatures, bits, error };
}
