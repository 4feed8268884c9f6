import { asFloat32, decoderFeeds, decoderInputs, type TensorValue } from '@cqil/runtime-gpu';
import { DataType, type Model, makeValueInfo, type Node, type Tensor } from '../../../onnx/index.js';
import { openVariant } from '../../../variant/index.js';

/** One step of a graph, as its nodes say. */
export interface FoundStep {
  readonly scale: number;
  readonly type: number;
}

/** The values behind a `QuantizeLinear` or `DequantizeLinear` with one scale and a zero point of 0. */
export async function stepOfNode(model: Model, node: Node): Promise<FoundStep> {
  const [scale, zero] = [node.input[1], node.input[2]].map((name) =>
    model.graph.initializers.get(name ?? ''),
  ) as [Tensor, Tensor];
  const [value] = new Float32Array(Uint8Array.from(await scale.bytes()).buffer);
  const zeros = await zero.bytes();
  if (scale.dims.length > 0 || zeros.some((byte) => byte !== 0)) throw new Error(`${node.name} is not plain`);
  return { scale: value as number, type: zero.dataType };
}

/** Runs a model with values inside given out, whatever it gave out before. */
export async function tapped(
  model: Model,
  values: readonly string[],
  ids: readonly number[],
): Promise<Record<string, TensorValue>> {
  const copy = model.clone();
  const given = new Set(copy.graph.outputs.map(({ name }) => name));
  for (const name of values) {
    if (!given.has(name)) copy.graph.outputs.push(makeValueInfo(name, DataType.FLOAT, ['b', 's', 'f']));
  }
  const session = await openVariant(copy, { threads: 1, config: { 'session.disable_quant_qdq': '1' } });
  try {
    const mask = [ids.map(() => 1)];
    return await session.run(decoderFeeds(decoderInputs(session.inputs), { ids: [[...ids]], mask }), [
      ...new Set(values),
    ]);
  } finally {
    await session.dispose();
  }
}

export interface Recomputed {
  readonly pairs: number;
  readonly sums: number;
  readonly products: number;
}

/**
 * Computes anew, in plain integers, what every pair of `QuantizeLinear` and `DequantizeLinear`, every addition between
 * such pairs and every product of codes gives, each from what the model itself gave it, and throws where that differs.
 */
export async function recompute(model: Model, ids: readonly number[]): Promise<Recomputed> {
  const { graph } = model;
  const makers = graph.producers();
  const readers = graph.consumers();
  const pairs = graph.nodes
    .filter(({ opType }) => opType === 'QuantizeLinear')
    .map((quantise) => ({ quantise, back: readers.get(quantise.output[0] as string)?.[0] as Node }));
  const behind = new Map(pairs.map(({ quantise, back }) => [quantise.input[0] as string, back]));
  const isBack = (value = '') => makers.get(value)?.opType === 'DequantizeLinear';
  const sums = graph.nodes.filter(
    ({ opType, input, output }) =>
      opType === 'Add' && input.every((term) => isBack(term)) && behind.has(output[0] as string),
  );
  const products = graph.nodes.filter(({ opType, input }) => opType === 'MatMul' && isBack(input[1]));
  const wanted = [
    ...pairs.flatMap(({ quantise, back }) => [quantise.input[0] as string, back.output[0] as string]),
    ...sums.flatMap(({ input }) => input),
    ...products.flatMap(({ input, output }) => [input[0] as string, output[0] as string]),
  ].filter((value) => !graph.initializers.has(value));
  const values = await tapped(model, wanted, ids);
  const of = (name: string) => asFloat32(values[name] as TensorValue);
  const codesOf = async (name: string) => {
    const { scale } = await stepOfNode(model, makers.get(name) as Node);
    return Array.from(of(name), (value) => Math.round(value / scale));
  };
  for (const { quantise, back } of pairs) {
    if (graph.initializers.has(quantise.input[0] as string)) continue;
    const { scale, type } = await stepOfNode(model, quantise);
    const limit = type === DataType.INT8 ? 128 : 32768;
    const [before, after] = [of(quantise.input[0] as string), of(back.output[0] as string)];
    before.forEach((value, i) => {
      const held = Math.max(-limit * scale, Math.min((limit - 1) * scale, value));
      const off = Math.abs(after[i]! - held) / scale;
      const whole = after[i]! / scale;
      if (off > 0.5 + 1e-2 || Math.abs(whole - Math.round(whole)) > 1e-2) {
        throw new Error(`${quantise.name}: ${value} became ${after[i]} with step ${scale}`);
      }
    });
  }
  for (const { name, input, output } of sums) {
    const back = behind.get(output[0] as string) as Node;
    const terms = await Promise.all(input.map(codesOf));
    const found = await codesOf(back.output[0] as string);
    const { type } = await stepOfNode(model, back);
    const limit = type === DataType.INT8 ? 128 : 32768;
    found.forEach((code, i) => {
      // A bias is added to each token alike.
      const sum = terms.reduce((total, codes) => total + (codes[i % codes.length] as number), 0);
      const held = Math.max(-limit, Math.min(limit - 1, sum));
      if (code !== held) throw new Error(`${name}: ${sum} as integers, but ${code}`);
    });
  }
  for (const { name, input, output } of products) {
    const matrix = makers.get(input[1] as string) as Node;
    const [codes, scales] = await Promise.all(
      matrix.input.slice(0, 2).map((part) => (graph.initializers.get(part) as Tensor).bytes()),
    );
    const weight = new Int8Array(Uint8Array.from(codes as Uint8Array).buffer);
    const scale = new Float32Array(Uint8Array.from(scales as Uint8Array).buffer);
    const x = await codesOf(input[0] as string);
    const { scale: step } = await stepOfNode(model, makers.get(input[0] as string) as Node);
    const inFeatures = weight.length / scale.length;
    const found = of(output[0] as string);
    const largest = found.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    found.forEach((value, i) => {
      const [token, column] = [Math.floor(i / scale.length), i % scale.length];
      let sum = 0;
      for (let k = 0; k < inFeatures; k++) {
        sum += (x[token * inFeatures + k] as number) * weight[k * scale.length + column]!;
      }
      const wanted = sum * step * scale[column]!;
      if (Math.abs(value - wanted) > 1e-4 * largest + 1e-6) {
        throw new Error(`${name}: ${wanted} as integers, but ${value}`);
      }
    });
  }
  return { pairs: pairs.length, sums: sums.length, products: products.length };
}
