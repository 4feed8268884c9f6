import { seededRandom } from '@cqil/runtime-gpu';
import {
  ComputedData,
  DataType,
  describeNode,
  type Model,
  makeNode,
  type Node,
  Tensor,
} from '../../onnx/index.js';
import { GraphEdit } from '../../rewrite/graph-edit.js';
import { Names } from '../../rewrite/names.js';
import { dropUnreadWeights, readValues } from '../../rewrite/unread-weights.js';
import { floatValues, matrixValues, turned } from '../matrix-values.js';
import type { LookupSite, ProductSite } from '../sites.js';
import type { ResidualSums } from './sums.js';

const NORM = 'SimplifiedLayerNormalization';
const ROW_CHOICES = new Set(['Gather', 'GatherND', 'Identity', 'Reshape', 'Slice', 'Squeeze', 'Unsqueeze']);

/**
 * A fixed orthogonal turn of vectors of one length: signs drawn once, a Hadamard transform over the power of two in the
 * length, a cosine transform over the rest. One large entry is spread over all of them.
 */
export class Rotation {
  readonly #signs: Float64Array;
  readonly #cosines: Float64Array;
  readonly #rest: number;

  constructor(readonly length: number) {
    const random = seededRandom(length);
    this.#signs = Float64Array.from({ length }, () => (random() < 0.5 ? -1 : 1));
    let rest = length;
    while (rest % 2 === 0) rest /= 2;
    this.#rest = rest;
    this.#cosines = Float64Array.from({ length: rest * rest }, (_, i) => {
      const [k, n] = [Math.floor(i / rest), i % rest];
      return k === 0 ? Math.sqrt(1 / rest) : Math.sqrt(2 / rest) * Math.cos((Math.PI * (n + 0.5) * k) / rest);
    });
  }

  /** Turns each row of `[rows, length]`, in a new array. */
  rows(values: Float32Array): Float32Array {
    const { length } = this;
    const out = new Float32Array(values.length);
    const row = new Float64Array(length);
    for (let at = 0; at < values.length; at += length) {
      for (let i = 0; i < length; i++) row[i] = values[at + i]! * this.#signs[i]!;
      this.#turn(row);
      out.set(row, at);
    }
    return out;
  }

  /** Turns each column of `[length, columns]`. */
  columns(values: Float32Array): Float32Array {
    const count = values.length / this.length;
    return turned(this.rows(turned(values, this.length, count)), count, this.length);
  }

  #turn(row: Float64Array): void {
    const rest = this.#rest;
    const blocks = row.length / rest;
    for (let span = 1; span < blocks; span *= 2) {
      for (let block = 0; block < blocks; block++) {
        if ((block & span) !== 0) continue;
        for (let q = 0; q < rest; q++) {
          const [i, j] = [block * rest + q, (block + span) * rest + q];
          const [a, b] = [row[i]!, row[j]!];
          row[i] = a + b;
          row[j] = a - b;
        }
      }
    }
    const scale = 1 / Math.sqrt(blocks);
    const part = new Float64Array(rest);
    for (let at = 0; at < row.length; at += rest) {
      for (let k = 0; k < rest; k++) {
        let sum = 0;
        for (let n = 0; n < rest; n++) sum += this.#cosines[k * rest + n]! * row[at + n]!;
        part[k] = sum * scale;
      }
      row.set(part, at);
    }
  }
}

/** What a turn of the stream changes in a graph. */
interface Turnable {
  readonly hidden: number;
  readonly tables: readonly LookupSite[];
  readonly norms: readonly Node[];
  /** Products that read a norm, with its gain. */
  readonly readers: ReadonlyMap<ProductSite, Tensor>;
  /** Products that are added to the stream. */
  readonly writers: ReadonlySet<ProductSite>;
}

interface Parts {
  readonly model: Model;
  readonly residual: ResidualSums;
  readonly products: ReadonlyMap<string, readonly ProductSite[]>;
  readonly lookups: readonly LookupSite[];
}

/**
 * Turns the residual stream of a decoder by a fixed orthogonal matrix R, which changes nothing that it computes: what is
 * added to the stream is multiplied by R, what reads it, behind a norm by root mean square, by Rᵀ, the norm's gain going
 * into the matrix first. Massive activations, a few entries a thousand times as large as all others, are spread over all
 * entries, and so one step serves them and the rest (QuaRot, arXiv 2404.00456, without its turns inside of layers).
 *
 * @param parts of a graph without fused sums; not changed
 * @returns the turned model, its new matrices computed when they are read; or why there is none, in words for the user
 */
export function rotateStream(parts: Parts): { readonly model: Model } | { readonly obstacle: string } {
  const found = turnable(parts);
  if (typeof found === 'string') return { obstacle: found };
  const { hidden, tables, norms, readers, writers } = found;
  const model = parts.model.clone();
  const readBefore = readValues(model);
  const edit = new GraphEdit(model.graph);
  const names = new Names(model);
  const rotation = new Rotation(hidden);
  const makers = model.graph.producers();
  const add = (label: string, dims: readonly number[], compute: () => Promise<Float32Array>) => {
    const name = names.fresh(`${label}.turned`);
    const data = new ComputedData(4 * dims.reduce((a, b) => a * b, 1), async () => bytesOf(await compute()));
    return model.graph.addInitializer(Tensor.create(name, DataType.FLOAT, dims, data));
  };
  for (const { node, tensor, rows, width, turned: across } of tables) {
    const table = add(tensor.name, [rows, width], async () => {
      const values = await floatValues(tensor);
      return rotation.rows(across ? turned(values, width, rows) : values);
    });
    const copy = makers.get(node.output[0] as string) as Node;
    copy.input = [table, copy.input[1] as string];
  }
  const ones = names.fresh('cqil.qdq.ones');
  model.graph.addInitializer(Tensor.create(ones, DataType.FLOAT, [hidden], new Float32Array(hidden).fill(1)));
  for (const { output } of norms) {
    const copy = makers.get(output[0] as string) as Node;
    copy.input = [copy.input[0] as string, ones];
  }
  const replaced = new Map<Node, Node[]>();
  for (const site of new Set([...readers.keys(), ...writers])) {
    const { node, input, bias, inFeatures, outFeatures, matrix } = site;
    const gain = readers.get(site);
    const weight = add(node.name || site.output, [inFeatures, outFeatures], async () => {
      let values = await matrixValues(matrix);
      if (gain !== undefined) values = rotation.columns(scaledRows(values, await floatValues(gain)));
      return writers.has(site) ? rotation.rows(values) : values;
    });
    const product = bias === undefined ? site.output : names.fresh(`${site.output}/product`);
    const nodes = [makeNode('MatMul', [input, weight], [product], { name: node.name })];
    if (bias !== undefined) {
      const name = names.fresh(`${node.name}/Add`);
      nodes.push(makeNode('Add', [product, bias], [site.output], { name }));
    }
    replaced.set(makers.get(site.output) as Node, nodes);
  }
  for (const [node, nodes] of replaced) edit.replace(node, nodes);
  edit.apply();
  dropUnreadWeights(model, readBefore);
  return { model };
}

function turnable({ model, residual, products, lookups }: Parts): Turnable | string {
  const { graph } = model;
  if (!graph.nodes.some(({ opType }) => opType === NORM)) {
    return 'its norms are not fused ones by root mean square (cqil fuse makes some so)';
  }
  const readersOf = graph.consumers();
  const makers = graph.producers();
  const sites = new Map([...products.values()].flat().map((site) => [site.output, site]));
  const tables = new Map(lookups.map((site) => [site.node.output[0] as string, site]));
  const given = new Set(graph.outputs.map(({ name }) => name));
  const sums = new Set(residual.sums.map(({ node }) => node));
  const outputs = new Set(residual.sums.map(({ output }) => output));
  const stream = [...outputs];
  const writers = new Set<ProductSite>();
  const starts = new Set<LookupSite>();
  for (const { node, terms } of residual.sums) {
    for (const term of terms) {
      if (outputs.has(term)) continue;
      const [table, site] = [tables.get(term), sites.get(term)];
      if (table !== undefined) {
        starts.add(table);
        stream.push(term);
      } else if (site === undefined || site.bias !== undefined) {
        return `"${term}", which ${describeNode(node)} adds to the stream, ${originOf(makers.get(term), site)}`;
      } else if (given.has(term) || (readersOf.get(term) ?? []).some((reader) => !sums.has(reader))) {
        return `"${term}" is read elsewhere, too`;
      } else writers.add(site);
    }
  }
  const norms = new Set<Node>();
  for (const value of stream) {
    if (given.has(value)) return `"${value}" is given out`;
    for (const reader of readersOf.get(value) ?? []) {
      if (sums.has(reader) || reader.opType === 'Shape') continue;
      if (reader.opType !== NORM) {
        return `${describeNode(reader)} reads the stream and is no fused norm by root mean square`;
      }
      norms.add(reader);
    }
  }
  const readers = new Map<ProductSite, Tensor>();
  for (const norm of norms) {
    const [output = '', ...others] = norm.output;
    const gain = graph.initializers.get(norm.input[1] ?? '');
    if (gain === undefined || gain.dataType !== DataType.FLOAT || others.some((value) => value !== '')) {
      return `${describeNode(norm)} has no gain in float32, or gives more than its norm`;
    }
    for (const open = [output]; open.length > 0; ) {
      const value = open.pop() as string;
      if (given.has(value)) return `"${value}", a norm of the stream, is given out`;
      const reading = products.get(value) ?? [];
      const nodes = new Set(reading.map(({ node }) => node));
      for (const site of reading) readers.set(site, gain);
      for (const reader of readersOf.get(value) ?? []) {
        if (nodes.has(reader) || reader.opType === 'Shape') continue;
        // Tokens may be chosen before a product: whole rows, as its number of inputs says.
        if (!ROW_CHOICES.has(reader.opType) || reader.input.indexOf(value) !== 0) {
          return `${describeNode(reader)} reads a norm of the stream and is no product with a float matrix`;
        }
        open.push(reader.output[0] as string);
      }
    }
  }
  const hidden = [...readers.keys()][0]?.inFeatures;
  if (hidden === undefined || starts.size === 0)
    return 'the stream does not begin with a table that is looked up';
  return { hidden, tables: [...starts], norms: [...norms], readers, writers };
}

/** What a term that cannot be turned comes from, in words for the user. */
function originOf(maker: Node | undefined, site: ProductSite | undefined): string {
  if (maker === undefined) return 'is an input or a constant';
  if (site !== undefined) return `comes with the bias of ${describeNode(maker)}`;
  return `comes from ${describeNode(maker)}, neither a lookup by token in a float table nor a product with a float matrix`;
}

/** `[rows, columns]`, each row times a number. */
function scaledRows(values: Float32Array, by: Float32Array): Float32Array {
  const columns = values.length / by.length;
  return values.map((value, i) => value * by[Math.floor(i / columns)]!);
}

function bytesOf({ buffer, byteOffset, byteLength }: Float32Array): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}
