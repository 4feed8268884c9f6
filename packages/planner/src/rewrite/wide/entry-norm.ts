import { isSkipNorm } from '../../anatomy/dataflow.js';
import type { Node } from '../../onnx/index.js';
import type { ConstantReader } from './constant-reader.js';

/** An input of a node that is a vector of weights. */
export interface WeightSlot {
  readonly node: Node;
  readonly slot: number;
  readonly value: string;
}

/** The norm at a branch's entry, taken apart: `g ⊙ x̂ + s`. */
export interface EntryNorm {
  /** What the branch's first products read. */
  readonly output: string;
  readonly gain: WeightSlot | undefined;
  readonly shift: WeightSlot | undefined;
}

/** Norms that are one operator, with the places of gain and shift. */
const OPERATORS: Readonly<Record<string, { readonly gain: number; readonly shift?: number }>> = {
  LayerNormalization: { gain: 1, shift: 2 },
  RMSNormalization: { gain: 1 },
  SimplifiedLayerNormalization: { gain: 1 },
  SkipLayerNormalization: { gain: 2, shift: 3 },
  SkipSimplifiedLayerNormalization: { gain: 2 },
};

/** Operators that change the type or fold positions, and no feature. */
const PASSES = new Set(['Cast', 'Identity']);

/**
 * Finds gain and shift of the norm that gives a value: an operator's inputs, or the constants of a `Mul` and an `Add`
 * that end a norm written in plain operators.
 *
 * @param width features of the value
 * @returns `undefined` where the value is given by no norm that could be read
 */
export function entryNorm(
  producers: ReadonlyMap<string, Node>,
  constants: ConstantReader,
  output: string,
  width: number,
): EntryNorm | undefined {
  const node = producers.get(output);
  const places = node && OPERATORS[node.opType];
  if (node !== undefined && places !== undefined) {
    // Mean and deviation, which such a node may give, too, are no norm.
    if (node.output[0] !== output || (node.opType.startsWith('Skip') && !isSkipNorm(node))) return undefined;
    const slot = (place: number | undefined) => {
      const value = place === undefined ? '' : (node.input[place] ?? '');
      return value === '' ? undefined : { node, slot: place as number, value };
    };
    return { output, gain: slot(places.gain), shift: slot(places.shift) };
  }
  const shift = constantOperand(producers, constants, output, 'Add', width);
  const scaled = shift === undefined ? output : shift.other;
  const gain = constantOperand(producers, constants, scaled, 'Mul', width);
  return gain === undefined ? undefined : { output, gain: gain.slot, shift: shift?.slot };
}

/** A value that is another one and a constant vector added or multiplied. */
function constantOperand(
  producers: ReadonlyMap<string, Node>,
  constants: ConstantReader,
  value: string,
  opType: 'Add' | 'Mul',
  width: number,
): { slot: WeightSlot; other: string } | undefined {
  let node = producers.get(value);
  while (node !== undefined && PASSES.has(node.opType)) node = producers.get(node.input[0] ?? '');
  if (node?.opType !== opType) return undefined;
  const slot = node.input.findIndex((input) => constants.has(input) && constants.size(input) === width);
  if (slot === -1) return undefined;
  const other = node.input[1 - slot] as string;
  return constants.has(other)
    ? undefined
    : { slot: { node, slot, value: node.input[slot] as string }, other };
}
