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

/** Every value that is known to have the shape of the stream. */
export function streamValues(anatomy: Anatomy): Set<string> {
  const values = new Set([anatomy.streamStart, anatomy.streamEnd]);
  for (const layer of anatomy.layers) {
    values.add(layer.input).add(layer.output);
    for (const branch of [layer.attention, layer.ffn]) {
      if (branch !== undefined) values.add(branch.add.skip).add(branch.add.sum).add(branch.add.carried);
    }
  }
  return values;
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
