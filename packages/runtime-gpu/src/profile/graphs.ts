/**
 * Graphs of a few nodes to time, written as protobuf (onnx.proto) by hand: a profile needs products and empty nodes,
 * nothing that would be worth a writer of ONNX files.
 */

/**
 * A product to time: [m, k] × [k, n] in float32, with float32 weights or 4-bit or 8-bit blocks of 32 with a float32 scale.
 */
export interface ProductShape {
  readonly m: number;
  readonly k: number;
  readonly n: number;
  readonly weights: 'float32' | 'int4' | 'int8';
}

/** Stored bits a weight, scales included. */
export const WEIGHT_BITS: Readonly<Record<ProductShape['weights'], number>> = {
  float32: 32,
  int4: 5,
  int8: 9,
};

/** An attention to time, in float32, over a cache that it appends to in place; it turns q and k by itself. */
export interface AttentionShape {
  /** New tokens, and those in the cache before. */
  readonly tokens: number;
  readonly context: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
}

/** A small operator to time that is more than element-wise, in float32, of [rows, width]; sums are over blocks of so many. */
export type OperatorShape = { readonly rows: number; readonly width: number } & (
  | { readonly operator: 'activation' | 'split'; readonly block?: never }
  | { readonly operator: 'sum'; readonly block: number }
);

const encoder = new TextEncoder();

const FLOAT = 1;
const UINT8 = 2;
const INT32 = 6;
const INT64 = 7;
const BLOCK = 32;

/**
 * A graph of `count` products of one input `x`, each with weights of its own, as a model's layers have them: weights
 * that come from memory and not from a cache. Outputs `y0`, `y1`, …: of several rows one element each, since a model's
 * inner values are not written to memory that was never used, as a graph's outputs are.
 */
export function productsGraph({ m, k, n, weights }: ProductShape, count: number): Uint8Array {
  const nodes: Uint8Array[] = [];
  const initializers: Uint8Array[] = m > 1 ? [...CORNER] : [];
  const outputs: Uint8Array[] = [];
  for (let i = 0; i < count; i++) {
    const [w, s, y] = [`w${i}`, `s${i}`, m > 1 ? `whole${i}` : `y${i}`];
    if (weights === 'float32') {
      initializers.push(tensor(w, FLOAT, [k, n], floats(k * n, i)));
      nodes.push(node('MatMul', ['x', w], y));
    } else {
      const blocks = k / BLOCK;
      const bits = weights === 'int4' ? 4 : 8;
      const bytes = (BLOCK * bits) / 8;
      initializers.push(tensor(w, UINT8, [n, blocks, bytes], codes(n * blocks * bytes, i)));
      initializers.push(tensor(s, FLOAT, [n * blocks], floats(n * blocks, i)));
      // Level 4 computes in int8, as imported models do.
      const attributes = { K: k, N: n, bits, block_size: BLOCK, accuracy_level: 4 };
      nodes.push(node('MatMulNBits', ['x', w, s], y, 'com.microsoft', attributes));
    }
    if (m > 1) nodes.push(cornerOf(y, `y${i}`));
    outputs.push(valueInfo(`y${i}`, m > 1 ? [1, 1] : [1, n]));
  }
  return model(nodes, initializers, [valueInfo('x', [m, k])], outputs);
}

/** The first element in the first two dimensions: [m, n] → [1, 1]. */
function cornerOf(from: string, to: string): Uint8Array {
  return node('Slice', [from, 'starts', 'ends', 'axes'], to);
}

const CORNER: readonly Uint8Array[] = Object.entries({
  starts: [0n, 0n],
  ends: [1n, 1n],
  axes: [0n, 1n],
}).map(([name, values]) => tensor(name, INT64, [2], bytesOf(values)));

/**
 * Small products one behind the other, each followed by so many element-wise ones: what a node costs where others' weights
 * have gone through the caches since, as in a model. From `x` to `y`, both [1, 256].
 */
export function spacedGraph(products: number, between: number): Uint8Array {
  const size = 256;
  const ones = new Uint8Array(new Float32Array(size).fill(1.0001).buffer);
  const nodes: Uint8Array[] = [];
  const initializers = [tensor('ones', FLOAT, [size], ones)];
  let last = 'x';
  const add = (operator: string, other: string, name: string) => {
    nodes.push(node(operator, [last, other], name));
    last = name;
  };
  for (let i = 0; i < products; i++) {
    initializers.push(tensor(`w${i}`, FLOAT, [size, size], floats(size * size, i)));
    add('MatMul', `w${i}`, `p${i}`);
    for (let j = 0; j < between; j++) add('Mul', 'ones', `v${i}.${j}`);
  }
  add('Mul', 'ones', 'y');
  return model(nodes, initializers, [valueInfo('x', [1, size])], [valueInfo('y', [1, size])]);
}

/**
 * `count` sums, each of the value before and of the one `lag` before that, written over the latter where ONNX Runtime can:
 * what a model's adds find, one operand just made and the other pushed out of the nearest cache since. From `x`, one element,
 * to `y`, [1, 1].
 */
export function laggedGraph(elements: number, lag: number, count: number): Uint8Array {
  const { initializers, nodes } = sources(lag, [1, elements]);
  const name = (i: number) => (i < lag ? `s${i}` : `v${i}`);
  for (let i = lag; i < lag + count; i++) nodes.push(node('Add', [name(i - lag), name(i - 1)], name(i)));
  nodes.push(cornerOf(name(lag + count - 1), 'y'));
  return model(nodes, [...CORNER, ...initializers], [valueInfo('x', [1])], [valueInfo('y', [1, 1])]);
}

/**
 * `count` values [rows, width] that are made from `x`, one element, and the operator on each, or none. Outputs `y0`, `y1`,
 * …: of what each gives one element. Every operator has a value of its own, since ONNX Runtime computes the same but once.
 */
export function operatorsGraph(
  { operator, rows, width, block }: OperatorShape,
  count: number,
  none = false,
): Uint8Array {
  const { initializers, nodes } = sources(count, [rows, width]);
  const outputs: Uint8Array[] = [];
  const give = (value: string, output: string) => {
    nodes.push(cornerOf(value, output));
    outputs.push(valueInfo(output, [1, 1]));
  };
  if (operator === 'sum') {
    initializers.push(
      tensor('blocks', INT64, [3], bytesOf([BigInt(rows), BigInt(width / block), BigInt(block)])),
      tensor('last', INT64, [1], bytesOf([2n])),
    );
  }
  for (let i = 0; i < count; i++) {
    const from = `s${i}`;
    if (none) {
      give(from, `y${i}`);
    } else if (operator === 'activation') {
      // ONNX Runtime makes one node of the two.
      nodes.push(node('Sigmoid', [from], `g${i}`), node('Mul', [from, `g${i}`], `a${i}`));
      give(`a${i}`, `y${i}`);
    } else if (operator === 'split') {
      nodes.push(node('Split', [from], [`a${i}`, `b${i}`], '', { axis: 1 }));
      give(`a${i}`, `y${i}`);
      give(`b${i}`, `z${i}`);
    } else {
      nodes.push(node('Reshape', [from, 'blocks'], `r${i}`));
      nodes.push(node('ReduceSum', [`r${i}`, 'last'], `a${i}`, '', { keepdims: 0 }));
      give(`a${i}`, `y${i}`);
    }
  }
  return model(nodes, [...CORNER, ...initializers], [valueInfo('x', [1])], outputs);
}

/** Values `s0`, `s1`, … that are made as the graph runs, so that nothing of them is known before. */
function sources(count: number, dims: readonly number[]) {
  const elements = dims.reduce((a, b) => a * b, 1);
  const initializers: Uint8Array[] = [];
  const nodes: Uint8Array[] = [];
  for (let i = 0; i < count; i++) {
    initializers.push(tensor(`c${i}`, FLOAT, dims, floats(elements, i)));
    nodes.push(node('Add', ['x', `c${i}`], `s${i}`));
  }
  return { initializers, nodes };
}

/** A chain of `count` element-wise products, from `x` to `y`, both [1, elements]; of a few elements they do next to nothing. */
export function chainGraph(count: number, elements = 8): Uint8Array {
  const name = (i: number) => (i === 0 ? 'x' : i === count ? 'y' : `v${i}`);
  // Mul by a vector: nothing that ONNX Runtime folds or fuses.
  const nodes = Array.from({ length: count }, (_, i) => node('Mul', [name(i), 'w'], name(i + 1)));
  const ones = new Uint8Array(new Float32Array(elements).fill(1.0001).buffer);
  const dims = [1, elements];
  return model(nodes, [tensor('w', FLOAT, [elements], ones)], [valueInfo('x', dims)], [valueInfo('y', dims)]);
}

/** A chain of `count` norms that add a value to the stream first, of `rows` tokens of `width`; from `x` to `y`, both [1, rows, width]. */
export function normsGraph(rows: number, width: number, count: number): Uint8Array {
  const ones = new Uint8Array(new Float32Array(width).fill(1).buffer);
  const dims = [1, rows, width];
  const nodes: Uint8Array[] = [];
  for (let i = 0; i < count; i++) {
    const [from, stream] = i === 0 ? ['x', 'x'] : [`v${i}`, `s${i}`];
    const last = i === count - 1;
    const outputs = [last ? 'y' : `v${i + 1}`, '', '', last ? 'end' : `s${i + 1}`];
    nodes.push(node('SkipSimplifiedLayerNormalization', [stream, from, 'gain'], outputs, 'com.microsoft'));
  }
  return model(nodes, [tensor('gain', FLOAT, [width], ones)], [valueInfo('x', dims)], [valueInfo('y', dims)]);
}

/**
 * A graph of `count` attentions of one input `x` (q, k and v side by side), each with a cache of its own (`k0`, `v0` →
 * `pk0`, `pv0`, [1, kvHeads, room, headDim]). Lengths are the inputs `lengths` (last position of each sequence) and
 * `total`, the bias is `bias` [1, 1, tokens, all tokens], as exports that take padded batches have one.
 */
export function attentionGraph(
  { tokens, context, heads, kvHeads, headDim }: AttentionShape,
  room: number,
  count: number,
): Uint8Array {
  const all = context + tokens;
  const width = (heads + 2 * kvHeads) * headDim;
  const angles = floats((room * headDim) / 2, 0);
  const initializers = ['cos', 'sin'].map((name) => tensor(name, FLOAT, [room, headDim / 2], angles));
  if (tokens > 1) initializers.push(...CORNER);
  const cache = [1, kvHeads, room, headDim];
  const inputs = [
    valueInfo('x', [1, tokens, width]),
    valueInfo('lengths', [1], INT32),
    valueInfo('total', [], INT32),
    valueInfo('bias', [1, 1, tokens, all]),
  ];
  const outputs: Uint8Array[] = [];
  const nodes: Uint8Array[] = [];
  for (let i = 0; i < count; i++) {
    const given = ['x', '', '', `k${i}`, `v${i}`, 'lengths', 'total', 'cos', 'sin', '', 'bias'];
    const attributes = { num_heads: heads, kv_num_heads: kvHeads, do_rotary: 1 };
    nodes.push(
      node(
        'GroupQueryAttention',
        given,
        [tokens > 1 ? `whole${i}` : `y${i}`, `pk${i}`, `pv${i}`],
        'com.microsoft',
        attributes,
      ),
    );
    if (tokens > 1) nodes.push(cornerOf(`whole${i}`, `y${i}`));
    inputs.push(valueInfo(`k${i}`, cache), valueInfo(`v${i}`, cache));
    outputs.push(
      valueInfo(`y${i}`, [1, 1, heads * headDim]),
      valueInfo(`pk${i}`, cache),
      valueInfo(`pv${i}`, cache),
    );
  }
  return model(nodes, initializers, inputs, outputs);
}

function bytesOf(values: readonly bigint[]): Uint8Array {
  return new Uint8Array(BigInt64Array.from(values).buffer);
}

/** Small floats that differ, so that pages are not shared and nothing is denormal. */
function floats(count: number, seed: number): Uint8Array {
  const values = new Float32Array(count);
  let state = seed + 1;
  for (let i = 0; i < Math.min(count, 4096); i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    values[i] = state / 2 ** 32 / 16 + 0.001;
  }
  for (let have = 4096; have < count; have *= 2) values.copyWithin(have, 0, Math.min(have, count - have));
  return new Uint8Array(values.buffer);
}

function codes(count: number, seed: number): Uint8Array {
  const values = new Uint8Array(count);
  let state = seed + 7;
  for (let i = 0; i < Math.min(count, 4096); i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    values[i] = state >>> 24;
  }
  for (let have = 4096; have < count; have *= 2) values.copyWithin(have, 0, Math.min(have, count - have));
  return values;
}

function model(
  nodes: readonly Uint8Array[],
  initializers: readonly Uint8Array[],
  inputs: readonly Uint8Array[],
  outputs: readonly Uint8Array[],
): Uint8Array {
  const graph = join([
    ...nodes.map((one) => bytes(1, one)),
    text(2, 'profile'),
    ...initializers.map((one) => bytes(5, one)),
    ...inputs.map((one) => bytes(11, one)),
    ...outputs.map((one) => bytes(12, one)),
  ]);
  const opset = (domain: string, version: number) => bytes(8, join([text(1, domain), integer(2, version)]));
  return join([integer(1, 8), opset('', 17), opset('com.microsoft', 1), bytes(7, graph)]);
}

function node(
  operator: string,
  inputs: readonly string[],
  output: string | readonly string[],
  domain = '',
  attributes: Readonly<Record<string, number>> = {},
): Uint8Array {
  return join([
    ...inputs.map((name) => text(1, name)),
    ...[output].flat().map((name) => text(2, name)),
    text(3, `${operator} ${[output].flat()[0]}`),
    text(4, operator),
    ...Object.entries(attributes).map(([name, value]) =>
      bytes(5, join([text(1, name), integer(3, value), integer(20, 2)])),
    ),
    text(7, domain),
  ]);
}

function tensor(name: string, type: number, dims: readonly number[], data: Uint8Array): Uint8Array {
  return join([...dims.map((dim) => integer(1, dim)), integer(2, type), text(8, name), bytes(9, data)]);
}

function valueInfo(name: string, dims: readonly number[], elements = FLOAT): Uint8Array {
  const shape = join(dims.map((dim) => bytes(1, integer(1, dim))));
  const type = bytes(1, join([integer(1, elements), bytes(2, shape)]));
  return join([text(1, name), bytes(2, type)]);
}

function text(field: number, value: string): Uint8Array {
  return bytes(field, encoder.encode(value));
}

function bytes(field: number, value: Uint8Array): Uint8Array {
  return join([varint(field * 8 + 2), varint(value.length), value]);
}

function integer(field: number, value: number): Uint8Array {
  return join([varint(field * 8), varint(value)]);
}

function varint(value: number): Uint8Array {
  const found: number[] = [];
  let rest = value;
  for (; rest >= 128; rest = Math.floor(rest / 128)) found.push((rest % 128) + 128);
  found.push(rest);
  return Uint8Array.from(found);
}

function join(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
