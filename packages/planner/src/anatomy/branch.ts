import type { Node } from '../onnx/index.js';
import type { Dataflow, Operation } from './dataflow.js';
import type { BranchAnatomy, NormKind, ResidualAdd } from './types.js';

/** What norms are made of when they are not one operator. */
const NORM_PARTS = new Set([
  'Add',
  'Cast',
  'Div',
  'Identity',
  'LayerNormalization',
  'Mul',
  'Pow',
  'RMSNormalization',
  'Reciprocal',
  'ReduceMean',
  'ReduceSum',
  'ReduceSumSquare',
  'ReduceL2',
  'SimplifiedLayerNormalization',
  'SkipLayerNormalization',
  'SkipSimplifiedLayerNormalization',
  'Sqrt',
  'Sub',
]);
const RMS_OPERATORS = new Set([
  'RMSNormalization',
  'SimplifiedLayerNormalization',
  'SkipSimplifiedLayerNormalization',
]);
const LAYER_OPERATORS = new Set(['LayerNormalization', 'SkipLayerNormalization']);
const REDUCTIONS = new Set(['ReduceMean', 'ReduceSum', 'ReduceSumSquare', 'ReduceL2']);

/** The operations between the stream's value and what a step adds to it. */
export function branchOperations(dataflow: Dataflow, add: ResidualAdd): Set<Operation> {
  const fromStream = dataflow.reachableFrom([add.skip]);
  const toSum = dataflow.reaching(add.contributions, (value) => value === add.skip);
  return new Set([...toSum].filter((operation) => fromStream.has(operation)));
}

export function describeBranch(
  dataflow: Dataflow,
  add: ResidualAdd,
  operations: ReadonlySet<Operation>,
): BranchAnatomy {
  const { norm, normOutput } = entryNorm(dataflow, add, operations);
  return {
    add,
    nodes: inOrder(operations),
    norm,
    normOutput,
    postNorm: exitNorm(dataflow, operations),
  };
}

function inOrder(operations: ReadonlySet<Operation>): Node[] {
  return [...operations].sort((a, b) => a.index - b.index).map((operation) => operation.node);
}

/** What is computed from the stream by parts of norms alone. Its last value, if one, is the normalised one. */
function entryNorm(
  dataflow: Dataflow,
  add: ResidualAdd,
  operations: ReadonlySet<Operation>,
): { norm: NormKind; normOutput: string | undefined } {
  const parts = new Set<Operation>();
  const values = new Set([add.skip]);
  for (const operation of [...operations].sort((a, b) => a.index - b.index)) {
    if (!NORM_PARTS.has(operation.op)) continue;
    const computed = dataflow.dataInputs(operation).filter((input) => {
      const producer = dataflow.producer(input);
      return input === add.skip || (producer !== undefined && operations.has(producer));
    });
    if (computed.length === 0 || !computed.every((input) => values.has(input))) continue;
    parts.add(operation);
    for (const output of operation.outputs) values.add(output);
  }
  const norm = kindOf(parts);
  if (norm === 'none') return { norm, normOutput: undefined };
  const exits = [...parts].flatMap((operation) =>
    operation.outputs.filter((output) =>
      dataflow.consumers(output).some((reader) => operations.has(reader) && !parts.has(reader)),
    ),
  );
  return { norm, normOutput: exits.length === 1 ? exits[0] : undefined };
}

/** The same from the other end: what lies between the last other operation and the sum. */
function exitNorm(dataflow: Dataflow, operations: ReadonlySet<Operation>): NormKind {
  const parts = new Set<Operation>();
  for (const operation of [...operations].sort((a, b) => b.index - a.index)) {
    if (!NORM_PARTS.has(operation.op)) continue;
    const ends = operation.outputs.every((output) => {
      const readers = dataflow.consumers(output).filter((reader) => operations.has(reader));
      return readers.every((reader) => parts.has(reader));
    });
    if (ends) parts.add(operation);
  }
  // A branch that is nothing but a norm has no norm behind it.
  return parts.size === operations.size ? 'none' : kindOf(parts);
}

function kindOf(parts: ReadonlySet<Operation>): NormKind {
  const names = [...parts].map((operation) => operation.op);
  if (names.some((name) => LAYER_OPERATORS.has(name))) return 'layer';
  if (names.some((name) => RMS_OPERATORS.has(name))) return 'rms';
  if (!names.some((name) => REDUCTIONS.has(name))) return 'none';
  return names.includes('Sub') ? 'layer' : 'rms';
}
