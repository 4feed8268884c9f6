import { create } from '@bufbuild/protobuf';
import { UsageError } from '@cqil/core';
import { OperatorSetIdProtoSchema } from '../../onnx/gen/onnx_pb.js';
import {
  DataType,
  describeNode,
  type Model,
  type Node,
  nodeInputs,
  setAttribute,
  Tensor,
} from '../../onnx/index.js';
import { subgraphs } from '../../onnx/model.js';
import { Names } from '../../rewrite/names.js';

/** From here on `QuantizeLinear` has a scale for each channel; below, other operators of decoders mean other things. */
export const CHANNEL_OPSET = 13;
/** From here on `QuantizeLinear` gives 16-bit codes. */
export const WIDE_OPSET = 21;
export type QdqOpset = typeof CHANNEL_OPSET | typeof WIDE_OPSET;
/** The version of the format that came with the operator set. */
const IR_VERSIONS: Readonly<Record<number, bigint>> = { [CHANNEL_OPSET]: 7n, [WIDE_OPSET]: 10n };

/** What means or takes something else between versions 13 and 21, by the operators' changelog. */
const CHANGED = new Set([
  'BatchNormalization',
  'DFT',
  'GridSample',
  'GroupNormalization',
  'Resize',
  'RoiAlign',
  'Upsample',
]);
/** Axes became an input in version 18. */
const AXES_AS_INPUT = /^Reduce(L1|L2|LogSum|LogSumExp|Max|Mean|Min|Prod|SumSquare)$/;
const AXES_OPSET = 18;

/**
 * Raises the version of the standard operators to at least `version`, and puts those whose form has changed into the new
 * one. Nothing happens where it is high enough.
 *
 * @param model changed
 * @throws UsageError `QDQ_OPSET` where a node might compute something else then
 */
export function raiseOpset(model: Model, version: QdqOpset): void {
  checkOpset(model, version);
  const before = opsetOf(model);
  if (before >= version) return;
  const names = new Names(model);
  for (const node of model.graph.nodes) {
    if (!isStandard(node) || before >= AXES_OPSET || version < AXES_OPSET) continue;
    if (AXES_AS_INPUT.test(node.opType)) axesAsInput(model, names, node);
    else if (node.opType === 'Split' && (node.input[1] ?? '') === '') {
      setAttribute(node, 'num_outputs', { int: node.output.length });
    }
  }
  const { rest } = model;
  rest.opsetImport = [
    create(OperatorSetIdProtoSchema, { domain: '', version: BigInt(version) }),
    ...rest.opsetImport.filter(({ domain }) => domain !== '' && domain !== 'ai.onnx'),
  ];
  const ir = IR_VERSIONS[version] as bigint;
  if (rest.irVersion < ir) rest.irVersion = ir;
}

/**
 * Whether `raiseOpset` can be done.
 *
 * @throws UsageError `QDQ_OPSET` where it cannot
 */
export function checkOpset(model: Model, version: QdqOpset): void {
  const before = opsetOf(model);
  if (before >= version) return;
  if (before < CHANNEL_OPSET) {
    throw refused(`operators of version ${before}`, `version ${CHANNEL_OPSET} or later`);
  }
  for (const node of model.graph.nodes) checkNode(node, before, version, false);
}

function checkNode(node: Node, before: number, version: QdqOpset, inside: boolean): void {
  for (const graph of subgraphs(node))
    for (const inner of graph.node) checkNode(inner, before, version, true);
  if (!isStandard(node)) return;
  // Nodes of subgraphs are shared with the source.
  const formed = AXES_AS_INPUT.test(node.opType) || node.opType === 'Split';
  if (!CHANGED.has(node.opType) && !(inside && formed && before < AXES_OPSET)) return;
  throw refused(
    `${describeNode(node)}, of version ${before}`,
    `operators that mean the same in version ${version}`,
  );
}

function opsetOf({ opsets }: Model): number {
  return opsets.get('') ?? 1;
}

function isStandard({ domain }: Node): boolean {
  return domain === '' || domain === 'ai.onnx';
}

function axesAsInput(model: Model, names: Names, node: Node): void {
  const axes = node.attribute.find(({ name }) => name === 'axes')?.ints;
  if (axes === undefined || nodeInputs(node).length > 1) return;
  const name = names.fresh(`${node.name || node.output[0]}.axes`);
  model.graph.addInitializer(Tensor.create(name, DataType.INT64, [axes.length], BigInt64Array.from(axes)));
  node.input = [node.input[0] as string, name];
  node.attribute = node.attribute.filter((attribute) => attribute.name !== 'axes');
}

function refused(found: string, expected: string): UsageError {
  return new UsageError(
    'QDQ_OPSET',
    'The graph cannot be taken to the operators that 8- and 16-bit codes need.',
    {
      expected,
      found,
      hint: `Export the model anew with operator set ${WIDE_OPSET} (in Optimum: --opset ${WIDE_OPSET}).`,
    },
  );
}
