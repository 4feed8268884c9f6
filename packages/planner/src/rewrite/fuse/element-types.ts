import { topologicalOrder } from '../../anatomy/dataflow.js';
import {
  attributeTensor,
  DataType,
  elementType,
  type Graph,
  intAttribute,
  type Node,
} from '../../onnx/index.js';

const BOOLEAN = new Set([
  'And',
  'Equal',
  'Greater',
  'GreaterOrEqual',
  'IsInf',
  'IsNaN',
  'Less',
  'LessOrEqual',
  'Not',
  'Or',
  'Xor',
]);
const INT64 = new Set(['ArgMax', 'ArgMin', 'NonZero', 'Shape', 'Size']);

/**
 * The element type of each value, as far as the operators' definitions tell it; a value that is missing has a type that
 * this does not know.
 */
export function elementTypes(graph: Graph): Map<string, number> {
  const types = new Map<string, number>();
  const note = (value: string, type: number | undefined) => {
    if (value !== '' && type !== undefined && type !== DataType.UNDEFINED) types.set(value, type);
  };
  for (const info of [...graph.inputs, ...graph.valueInfo, ...graph.outputs])
    note(info.name, elementType(info));
  for (const [name, tensor] of graph.initializers) note(name, tensor.dataType);
  for (const node of topologicalOrder(graph)) {
    for (const [index, output] of node.output.entries()) {
      if (!types.has(output)) note(output, resultType(node, index, types));
    }
  }
  return types;
}

function resultType(node: Node, index: number, types: ReadonlyMap<string, number>): number | undefined {
  const input = (place: number) => types.get(node.input[place] ?? '');
  if (BOOLEAN.has(node.opType)) return DataType.BOOL;
  if (INT64.has(node.opType)) return DataType.INT64;
  switch (node.opType) {
    case 'Cast':
      return intAttribute(node, 'to');
    case 'Constant':
    case 'ConstantOfShape':
      return constantType(node);
    case 'Where':
      return input(1) ?? input(2);
    case 'DequantizeLinear':
      return input(1);
    case 'DynamicQuantizeLinear':
      return index === 1 ? DataType.FLOAT : DataType.UINT8;
    case 'QuantizeLinear':
      return input(2) ?? DataType.UINT8;
    case 'MatMulInteger':
    case 'ConvInteger':
      return DataType.INT32;
    case 'MatMulIntegerToFloat':
      return input(2);
    case 'TopK':
      return index === 0 ? input(0) : DataType.INT64;
    case 'If':
    case 'Loop':
    case 'Scan':
      return undefined;
    default:
      return input(0) ?? input(1);
  }
}

function constantType(node: Node): number | undefined {
  const [attribute] = node.attribute;
  if (attribute === undefined) return DataType.FLOAT;
  if (attribute.name.startsWith('value_float')) return DataType.FLOAT;
  if (attribute.name.startsWith('value_int')) return DataType.INT64;
  return attributeTensor(attribute)?.dataType;
}
