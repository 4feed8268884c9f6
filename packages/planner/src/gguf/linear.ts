import type { TensorData } from '../onnx/index.js';
import { matMulData, vectorData } from './float-data.js';
import type { GraphBuilder } from './graph-builder.js';
import type { LinearLayer } from './weights.js';

/** Adds `x · Wᵀ + b` to a graph in one of the ways to store W; returns the name of the result. */
export type LinearEmitter = (
  builder: GraphBuilder,
  name: string,
  input: string,
  layer: LinearLayer,
  output?: string,
) => string;

/** `/model/layers.0/attn/o_proj` → `model.layers.0.attn.o_proj` */
export function weightName(nodeName: string): string {
  return nodeName.replace(/^\//, '').replaceAll('/', '.');
}

/** W as a matrix of floating-point numbers. */
export const emitFloatLinear: LinearEmitter = (builder, name, input, layer, output) => {
  const data: TensorData = matMulData(layer, builder.floatType);
  const weight = builder.weight(
    `${weightName(name)}.MatMul.weight`,
    builder.floatDataType,
    [layer.inputs, layer.outputs],
    data,
  );
  const product = `${name}/MatMul`;
  if (layer.biases === undefined) return builder.node(product, 'MatMul', [input, weight], {}, output);
  return emitBias(builder, name, builder.node(product, 'MatMul', [input, weight]), layer, output);
};

/** Adds a layer's bias to the product, where it has one. */
export function emitBias(
  builder: GraphBuilder,
  name: string,
  product: string,
  layer: LinearLayer,
  output?: string,
): string {
  if (layer.biases === undefined) return product;
  const bias = builder.weight(
    `${weightName(name)}.Add.bias`,
    builder.floatDataType,
    [layer.outputs],
    vectorData(layer.biases, builder.floatType),
  );
  return builder.node(`${name}/Add`, 'Add', [product, bias], {}, output);
}
