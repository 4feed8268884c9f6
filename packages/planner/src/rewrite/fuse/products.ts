import {
  bitsPerElement,
  ComputedData,
  type Graph,
  type Node,
  Tensor,
  type TensorData,
} from '../../onnx/index.js';

/** A weight `[inFeatures, outFeatures]` of a `MatMul` as it is stored: itself, or transposed by a node. */
export interface FloatWeight {
  readonly tensor: Tensor;
  readonly transposed: boolean;
  readonly inFeatures: number;
  readonly outFeatures: number;
}

/** The weight that a `MatMul` multiplies by, where it is one of floating-point numbers. */
export function floatWeight(
  graph: Graph,
  producers: ReadonlyMap<string, Node>,
  node: Node,
): FloatWeight | undefined {
  if (node.opType !== 'MatMul') return undefined;
  const name = node.input[1] ?? '';
  const maker = producers.get(name);
  const perm = maker?.attribute.find((attribute) => attribute.name === 'perm')?.ints.map(Number);
  const turned = maker?.opType === 'Transpose' && (perm === undefined || perm.join() === '1,0');
  const tensor = graph.initializers.get(turned ? (maker.input[0] ?? '') : name);
  const [rows, columns, ...more] = tensor?.dims ?? [];
  if (tensor === undefined || rows === undefined || columns === undefined || more.length > 0)
    return undefined;
  return turned
    ? { tensor, transposed: true, inFeatures: columns, outFeatures: rows }
    : { tensor, transposed: false, inFeatures: rows, outFeatures: columns };
}

/** Matrices with the same number of rows side by side, made when they are written, from one of them after the other. */
export function sideBySide(name: string, weights: readonly FloatWeight[]): Tensor {
  const [first] = weights as [FloatWeight, ...FloatWeight[]];
  const { inFeatures } = first;
  const outFeatures = weights.reduce((sum, weight) => sum + weight.outFeatures, 0);
  const size = bytesPerElement(first.tensor);
  const data = new ComputedData(inFeatures * outFeatures * size, async () => {
    const out = new Uint8Array(inFeatures * outFeatures * size);
    let column = 0;
    for (const { tensor, transposed, outFeatures: width } of weights) {
      const bytes = await tensor.bytes();
      for (let row = 0; row < inFeatures; row++) {
        const to = (row * outFeatures + column) * size;
        if (!transposed) {
          out.set(bytes.subarray(row * width * size, (row + 1) * width * size), to);
          continue;
        }
        for (let i = 0; i < width; i++) {
          const from = (i * inFeatures + row) * size;
          for (let byte = 0; byte < size; byte++) out[to + i * size + byte] = bytes[from + byte] as number;
        }
      }
      column += width;
    }
    return out;
  });
  return Tensor.create(name, first.tensor.dataType, [inFeatures, outFeatures], data);
}

/** Tensors one after the other along their first axis. */
export function oneAfterTheOther(name: string, tensors: readonly Tensor[]): Tensor {
  const [first] = tensors as [Tensor, ...Tensor[]];
  const [, ...rest] = first.dims;
  const length = tensors.reduce((sum, { dims }) => sum + (dims[0] ?? 0), 0);
  const byteLength = tensors.reduce((sum, tensor) => sum + tensor.byteLength, 0);
  const data: TensorData = {
    byteLength,
    async read() {
      const out = new Uint8Array(byteLength);
      let at = 0;
      for await (const chunk of chunksOf(tensors)) {
        out.set(chunk, at);
        at += chunk.byteLength;
      }
      return out;
    },
    chunks: () => chunksOf(tensors),
  };
  return Tensor.create(name, first.dataType, [length, ...rest], data);
}

async function* chunksOf(tensors: readonly Tensor[]): AsyncGenerator<Uint8Array> {
  for (const tensor of tensors) {
    if (tensor.data?.chunks !== undefined) yield* tensor.data.chunks();
    else yield await tensor.bytes();
  }
}

export function bytesPerElement({ dataType }: { readonly dataType: number }): number {
  return (bitsPerElement(dataType) ?? 0) / 8;
}
