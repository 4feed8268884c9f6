import { DataType, elementType, intAttribute, isFloatType, type Model, setAttribute } from '../onnx/index.js';

/** How a model computes, as far as it decides how exactly two of its graphs can agree. */
export type Arithmetic = 'float32' | 'float16' | 'int8' | 'int4';

/**
 * Largest distance of two logits that different but equal computations may have, for logits that spread about 1.
 *
 * float32 and int4 (whose products are computed in float32, see `atFullAccuracy`): rounding of sums. float16:
 * rounding of activations. int8: an activation near the border of two steps is rounded the other way.
 */
export const BASE_TOLERANCE: Readonly<Record<Arithmetic, number>> = {
  float32: 1e-3,
  float16: 0.02,
  int8: 0.05,
  int4: 1e-3,
};

/** Whether activations are kept with fewer digits than float32 has, so that errors grow with their size. */
export function roundsActivations(arithmetic: Arithmetic): boolean {
  return arithmetic === 'float16' || arithmetic === 'int8';
}

/** Operators that quantise activations while the model runs. */
const DYNAMIC_INT8 = new Set([
  'DynamicQuantizeLinear',
  'DynamicQuantizeMatMul',
  'DynamicQuantizeLSTM',
  'MatMulInteger',
  'MatMulIntegerToFloat',
  'QAttention',
  'QLinearMatMul',
  'QGemm',
]);

export function arithmeticOf(model: Model): Arithmetic {
  const operators = new Set(model.graph.nodes.map((node) => node.opType));
  if ([...operators].some((operator) => DYNAMIC_INT8.has(operator))) return 'int8';
  const half = (type: number | undefined) => type === DataType.FLOAT16 || type === DataType.BFLOAT16;
  const values = [...model.graph.inputs, ...model.graph.outputs].map(elementType);
  const weights = [...model.graph.initializers.values()].filter(({ dataType }) => isFloatType(dataType));
  if (values.some(half) || weights.some(({ dataType }) => half(dataType))) return 'float16';
  return operators.has('MatMulNBits') ? 'int4' : 'float32';
}

/** `accuracy_level` of `MatMulNBits`: computed in float32. */
const FLOAT32_ACCURACY = 1;

/**
 * A copy whose 4-bit products are computed in float32 instead of with activations quantised to 8 bits, which the
 * exporter may have asked for: two graphs can then be compared closely. The same model where there is nothing to
 * change.
 */
export function atFullAccuracy(model: Model): Model {
  const wanted = (node: Model['graph']['nodes'][number]) =>
    node.opType === 'MatMulNBits' && intAttribute(node, 'accuracy_level') !== FLOAT32_ACCURACY;
  if (!model.graph.nodes.some(wanted)) return model;
  const copy = model.clone();
  for (const node of copy.graph.nodes) {
    if (wanted(node)) setAttribute(node, 'accuracy_level', { int: FLOAT32_ACCURACY });
  }
  return copy;
}
