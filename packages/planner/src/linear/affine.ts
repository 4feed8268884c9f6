import type { Dataflow, Operation } from '../anatomy/dataflow.js';
import { layoutOfProduct } from '../block-offsets/index.js';
import { DataType, intAttribute, isFloatType, type Node } from '../onnx/index.js';
import type { Constants } from './constants.js';
import { hasActivation, type WeightProduct, weightProduct } from './products.js';

/** What lies between two values of a graph, where that is an affine map of each token's features. */
export interface AffinePart {
  readonly input: string;
  readonly output: string;
  readonly inFeatures: number;
  readonly outFeatures: number;
  readonly hasBias: boolean;
  /** Element types, as in `DataType`. */
  readonly inputType: number;
  readonly outputType: number;
  /** In topological order. */
  readonly nodes: readonly Node[];
  /** Those of the nodes that only fold batch and sequence together or apart. */
  readonly folds: readonly { readonly node: Node; readonly behindProduct: boolean }[];
  /** Whether the input has two axes: a product takes matrices only. */
  readonly rank2: boolean;
  /** Whether a weight is stored in codes. */
  readonly quantised: boolean;
  /** Of the first `MatMulNBits` that states one. */
  readonly accuracyLevel: number | undefined;
}

/** Numbers whose last axis is an affine function of the input's last axis, position by position. */
interface Rows {
  readonly kind: 'rows';
  readonly weighted: boolean;
  readonly biased: boolean;
  /** Unknown for the input until a product reads it. */
  readonly width: number | undefined;
  readonly type: number | undefined;
  /** Whether it is the input itself, perhaps in other axes. */
  readonly direct: boolean;
}

/** A value between the two ends: numbers, or a part of the arithmetic of quantised products. */
type Value =
  | Rows
  /** The last axis split in blocks, and the sums of these. */
  | { readonly kind: 'blocks' | 'sums' }
  /** The input with the sums of its blocks behind it, for a product of blocks with offsets. */
  | { readonly kind: 'with-sums'; readonly rows: Rows; readonly digits: number }
  | { readonly kind: 'codes'; readonly of: Rows }
  /** The scale of dynamic codes, perhaps times that of a weight. */
  | { readonly kind: 'scale' }
  | { readonly kind: 'zero-point' }
  /** Sums of products of codes, without their scale. */
  | { readonly kind: 'products'; readonly width: number; readonly type: number };

const FOLDS = new Set(['Flatten', 'Reshape', 'Squeeze', 'Unsqueeze']);
/** What makes sums of blocks, perhaps padded. */
const SUMMED = new Set(['Pad', 'ReduceSum']);
const KEEPS = new Set(['Dropout', 'Identity', 'Neg']);

/** Where a way between two values stops being affine, or `undefined` where there is no product on it. */
export interface NotAffine {
  readonly at: Node | undefined;
}

export function isAffine(found: AffinePart | NotAffine): found is AffinePart {
  return 'output' in found;
}

/** Reads parts of one graph as affine maps, operator by operator. */
export class AffineReader {
  readonly #products = new Map<Operation, WeightProduct | undefined>();

  constructor(
    readonly dataflow: Dataflow,
    readonly constants: Constants,
  ) {}

  product(operation: Operation): WeightProduct | undefined {
    if (operation.kind !== 'plain') return undefined;
    if (!this.#products.has(operation)) {
      this.#products.set(operation, weightProduct(operation.node, this.constants));
    }
    return this.#products.get(operation);
  }

  /** What sums of its blocks were put behind, for a product of blocks with offsets. */
  beforeSums(value: string): string | undefined {
    const source = this.dataflow.producer(value);
    const [first, second = ''] = source?.op === 'Concat' ? source.node.input : [];
    return SUMMED.has(this.dataflow.producer(second)?.op ?? '') ? first : undefined;
  }

  /**
   * The operations that compute `output` from `input`, in order; what `output` needs besides must be constant.
   *
   * @param stop values that the way back does not pass; for speed
   */
  between(input: string, output: string, stop: ReadonlySet<string> = new Set()): Operation[] {
    const before = this.dataflow.reaching([output], (value) => value === input || stop.has(value));
    const made = new Set([input]);
    return [...before]
      .sort((a, b) => a.index - b.index)
      .filter((operation) => {
        if (!this.dataflow.dataInputs(operation).some((value) => made.has(value))) return false;
        for (const value of operation.outputs) made.add(value);
        return true;
      });
  }

  /** The affine map from one value to another, or where it is none. */
  part(input: string, output: string, stop?: ReadonlySet<string>): AffinePart | NotAffine {
    const operations = this.between(input, output, stop);
    const start: Rows = {
      kind: 'rows',
      weighted: false,
      biased: false,
      width: undefined,
      type: undefined,
      direct: true,
    };
    const walk = new Walk(this, new Map([[input, start]]));
    for (const operation of operations) if (!walk.pass(operation)) return { at: operation.node };
    const end = walk.values.get(output);
    if (end?.kind !== 'rows') return { at: operations.at(-1)?.node };
    if (!end.weighted || end.width === undefined || end.type === undefined) return { at: undefined };
    if (walk.inFeatures === undefined || walk.inputType === undefined) return { at: operations[0]?.node };
    return {
      input,
      output,
      inFeatures: walk.inFeatures,
      outFeatures: end.width,
      hasBias: end.biased,
      inputType: walk.inputType,
      outputType: end.type,
      nodes: operations.map(({ node }) => node),
      folds: walk.folds,
      rank2: walk.rank2,
      quantised: walk.quantised,
      accuracyLevel: walk.accuracyLevel,
    };
  }
}

class Walk {
  readonly folds: { node: Node; behindProduct: boolean }[] = [];
  inFeatures: number | undefined;
  inputType: number | undefined;
  rank2 = false;
  quantised = false;
  accuracyLevel: number | undefined;

  constructor(
    readonly reader: AffineReader,
    readonly values: Map<string, Value>,
  ) {}

  /** @returns whether the operation is a step of an affine map */
  pass(operation: Operation): boolean {
    if (operation.kind !== 'plain' || hasActivation(operation.node)) return false;
    const { node } = operation;
    const product = this.reader.product(operation);
    if (product !== undefined) return this.#give(node, this.#multiply(node, product));
    if (node.opType === 'DynamicQuantizeLinear') return this.#quantise(node);
    return this.#give(node, this.#step(operation));
  }

  #give(node: Node, value: Value | undefined): boolean {
    const [output = ''] = node.output;
    if (value === undefined || output === '') return false;
    this.values.set(output, value);
    return true;
  }

  #value(name: string | undefined): Value | undefined {
    return name === undefined || name === '' ? undefined : this.values.get(name);
  }

  #constant(name: string | undefined): boolean {
    return name !== undefined && name !== '' && this.reader.constants.has(name);
  }

  /** The input's size and type are told by the first that reads it. */
  #readsInput(rows: Rows, width: number | undefined, type: number | undefined): boolean {
    if (!rows.direct) return rows.width === undefined || width === undefined || rows.width === width;
    this.inFeatures ??= width;
    this.inputType ??= type;
    return width === undefined || this.inFeatures === width;
  }

  #multiply(node: Node, product: WeightProduct): Value | undefined {
    const data = this.#value(product.data);
    const read = this.#readBy(product, data);
    if (read === undefined) return undefined;
    const { rows, inFeatures } = read;
    // Scales and zero points must be those of the codes, or constant; nothing else may enter.
    const others = node.input.filter((input) => input !== '' && input !== product.data);
    const fits = (name: string) =>
      this.#constant(name) || ['scale', 'zero-point'].includes(this.#value(name)?.kind ?? '');
    if (!others.every(fits)) return undefined;
    if (!this.#readsInput(rows, inFeatures, product.type)) return undefined;
    this.rank2 ||= product.rank2;
    this.quantised ||= product.quantised;
    this.accuracyLevel ??= product.accuracyLevel;
    const width = product.outFeatures;
    const type = product.type ?? DataType.FLOAT;
    const biased = rows.biased || product.biased;
    const result: Rows = { kind: 'rows', weighted: true, biased, width, type, direct: false };
    if (product.gives === 'codes') return { kind: 'codes', of: result };
    // A bias before such a product would need a place in the sums of codes.
    if (product.gives === 'products') {
      return rows.weighted ? undefined : { kind: 'products', width, type: DataType.INT32 };
    }
    return result;
  }

  /** The numbers that a product is a function of, and how many of them. */
  #readBy(product: WeightProduct, data: Value | undefined): { rows: Rows; inFeatures: number } | undefined {
    const { inFeatures } = product;
    if (data?.kind === 'with-sums') {
      const { bits, blockSize } = product.blocks ?? {};
      const layout =
        bits === undefined || blockSize === undefined
          ? undefined
          : layoutOfProduct(inFeatures, bits, blockSize);
      return layout?.digits === data.digits ? { rows: data.rows, inFeatures: layout.inFeatures } : undefined;
    }
    const rows = data?.kind === 'codes' ? data.of : data;
    return data?.kind === product.reads && rows?.kind === 'rows' ? { rows, inFeatures } : undefined;
  }

  #quantise(node: Node): boolean {
    const rows = this.#value(node.input[0]);
    if (rows?.kind !== 'rows' || !this.#readsInput(rows, undefined, DataType.FLOAT)) return false;
    const [codes = '', scale = '', zeroPoint = ''] = node.output;
    this.values.set(codes, { kind: 'codes', of: { ...rows, type: DataType.FLOAT } });
    this.values.set(scale, { kind: 'scale' });
    this.values.set(zeroPoint, { kind: 'zero-point' });
    return true;
  }

  #step({ op, node }: Operation): Value | undefined {
    const first = this.#value(node.input[0]);
    if (op === 'Add' || op === 'Sub' || op === 'Sum') return this.#sum(node);
    if (op === 'Mul' || op === 'Div') return this.#scale(node);
    if (first === undefined) return undefined;
    if (op === 'Cast') return cast(first, intAttribute(node, 'to'));
    if (op === 'Identity') return first;
    if (op === 'QuantizeLinear' && first.kind === 'rows') {
      if (!node.input.slice(1).every((name) => name === '' || this.#constant(name))) return undefined;
      const type = this.reader.constants.info(node.input[1] ?? '')?.dataType;
      return this.#readsInput(first, undefined, type) ? { kind: 'codes', of: { ...first, type } } : undefined;
    }
    if (op === 'DequantizeLinear' && first.kind === 'codes') {
      const fits = (name: string) =>
        name === '' ||
        this.#constant(name) ||
        ['scale', 'zero-point'].includes(this.#value(name)?.kind ?? '');
      return node.input.slice(1).every(fits) ? first.of : undefined;
    }
    if (op === 'ReduceSum' && first.kind === 'blocks') return { kind: 'sums' };
    if (op === 'Pad' && first.kind === 'sums') return first;
    if (op === 'Concat') return this.#withSums(node);
    if (first.kind !== 'rows') return undefined;
    if (KEEPS.has(op)) return op === 'Neg' ? { ...first, direct: false } : first;
    return FOLDS.has(op) ? this.#fold(node, first) : undefined;
  }

  /** A reshape splits features in blocks where all that reads it sums them, and otherwise folds positions. */
  #fold(node: Node, rows: Rows): Value | undefined {
    const readers = this.reader.dataflow.consumers(node.output[0] ?? '');
    if (node.opType === 'Reshape' && readers.length > 0 && readers.every(({ op }) => op === 'ReduceSum')) {
      return rows.direct ? { kind: 'blocks' } : undefined;
    }
    this.folds.push({ node, behindProduct: rows.weighted });
    return rows;
  }

  /** The input, and behind it the sums of its blocks once for each digit of their offsets. */
  #withSums(node: Node): Value | undefined {
    const [first, ...others] = node.input.map((name) => this.#value(name));
    if (intAttribute(node, 'axis') !== -1 || first?.kind !== 'rows' || !first.direct) return undefined;
    const same = others.length > 0 && new Set(node.input.slice(1)).size === 1;
    return same && others[0]?.kind === 'sums'
      ? { kind: 'with-sums', rows: first, digits: others.length }
      : undefined;
  }

  /** `rows ± constant` is a bias; `rows ± rows` adds two maps of the same input. */
  #sum(node: Node): Value | undefined {
    let sum: Rows | undefined;
    let biased = false;
    for (const name of node.input) {
      const value = this.#value(name);
      if (value?.kind === 'rows') {
        if (sum !== undefined && sum.width !== value.width) return undefined;
        sum = sum === undefined ? value : { ...sum, weighted: sum.weighted || value.weighted };
        biased ||= value.biased;
      } else if (this.#constant(name)) biased = true;
      else return undefined;
    }
    return sum && { ...sum, biased, direct: false };
  }

  #scale(node: Node): Value | undefined {
    const [left, right] = node.input.map((name) => this.#value(name));
    const [a = '', b = ''] = node.input;
    const value = left ?? right;
    if (value === undefined) return undefined;
    if (left !== undefined && right !== undefined) {
      if (node.opType !== 'Mul') return undefined;
      const products = [left, right].find((side) => side.kind === 'products');
      if (products === undefined || ![left, right].some((side) => side.kind === 'scale')) return undefined;
      const { width, type } = products;
      return { kind: 'rows', weighted: true, biased: false, width, type, direct: false };
    }
    if (!this.#constant(left === undefined ? a : b)) return undefined;
    // A quotient by the rows is not affine in them.
    if (node.opType === 'Div' && left === undefined) return undefined;
    if (value.kind === 'scale') return value;
    return value.kind === 'rows' ? { ...value, direct: false } : undefined;
  }
}

function cast(value: Value, to: number | undefined): Value | undefined {
  if (to === undefined || !isFloatType(to)) return undefined;
  if (value.kind === 'rows' || value.kind === 'products') return { ...value, type: to };
  return value.kind === 'scale' ? value : undefined;
}
