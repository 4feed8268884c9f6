import type { AttributeValue } from '../onnx/index.js';
import type { OffsetLayout } from './layout.js';

/** How nodes are added to a graph. */
export interface NodeMaker {
  /** A node with one output; the name of that. */
  node(
    opType: 'Reshape' | 'ReduceSum' | 'Pad' | 'Concat',
    inputs: readonly string[],
    attributes?: Readonly<Record<string, AttributeValue>>,
  ): string;
  /** A constant vector of int64. */
  integers(values: readonly number[]): string;
}

/**
 * `[batch, sequence, inFeatures]` → `[batch, sequence, features]`: the input, and the sums of its blocks for each digit.
 * The operators are those of opset 13 and later.
 */
export function appendBlockSums(make: NodeMaker, input: string, layout: OffsetLayout): string {
  const { blocks, blockSize, digits, digitFeatures } = layout;
  const split = make.node('Reshape', [input, make.integers([0, 0, blocks, blockSize])]);
  let sums = make.node('ReduceSum', [split, make.integers([-1])], { keepdims: { int: 0 } });
  if (digitFeatures > blocks) {
    sums = make.node('Pad', [sums, make.integers([0, 0, 0, 0, 0, digitFeatures - blocks])]);
  }
  return make.node('Concat', [input, ...Array<string>(digits).fill(sums)], { axis: { int: -1 } });
}
