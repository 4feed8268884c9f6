import type { Anatomy } from '../anatomy/index.js';
import { SubmodelCutter } from '../onnx/extract.js';
import type { Model } from '../onnx/index.js';

/**
 * The states of the residual stream that are compared: every layer's input and the last layer's output,
 * layers + 1 values of shape `[batch, seq, hidden]`.
 */
export function streamPoints(anatomy: Anatomy): string[] {
  return [anatomy.layers[0]!.input, ...anatomy.layers.map((layer) => layer.output)];
}

/**
 * A model that gives out the stream's states instead of logits. What only the logits need is left out, which
 * saves the product with the vocabulary.
 *
 * @param unfused a model without fused skip norms, where every state is a value of its own
 */
export function tappedModel(unfused: Model, anatomy: Anatomy): Model {
  return new SubmodelCutter(unfused).cut([], [...new Set(streamPoints(anatomy))]);
}
