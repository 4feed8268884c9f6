import { toHalf } from '../gguf/half.js';
import {
  ComputedData,
  DataType,
  type Graph,
  intAttribute,
  type Model,
  makeNode,
  type Node,
  Tensor,
} from '../onnx/index.js';
import { GraphEdit } from '../rewrite/graph-edit.js';
import { Names } from '../rewrite/names.js';
import { dropUnreadWeights, readValues } from '../rewrite/unread-weights.js';
import { dequantiseBlocks } from './blocks.js';
import { floatValues, turned } from './matrix-values.js';
import { labelOf } from './place.js';

/** A table in blocks along its rows, as `GatherBlockQuantized` and `MatMulNBits` both read them. */
interface BlockTable {
  readonly rows: number;
  readonly width: number;
  readonly bits: 4 | 8;
  readonly blockSize: number;
  readonly codes: Tensor;
  readonly scales: Tensor;
  readonly zeroPoints: Tensor | undefined;
}

/**
 * A copy of a model in which tables that are looked up hold numbers of the type that is wanted of them: those in blocks
 * (`GatherBlockQuantized`, a head that reads the same blocks becoming a product with the same table, transposed), and
 * float16 ones whose rows are cast to float32. They are computed when they are read. The model itself where there are
 * none.
 */
export function withFloatTables(source: Model): Model {
  const model = source.clone();
  const { graph } = model;
  const readBefore = readValues(model);
  const edit = new GraphEdit(graph);
  const names = new Names(model);
  const readers = graph.consumers();
  const given = new Set(graph.outputs.map(({ name }) => name));
  const add = (
    node: Node,
    dataType: number,
    dims: readonly number[],
    values: () => Promise<Float32Array>,
  ) => {
    const half = dataType === DataType.FLOAT16;
    const data = new ComputedData((half ? 2 : 4) * dims.reduce((a, b) => a * b, 1), async () => {
      const numbers = await values();
      const { buffer, byteOffset, byteLength } = half ? toHalf(numbers) : numbers;
      return new Uint8Array(buffer, byteOffset, byteLength);
    });
    const name = names.fresh(`${labelOf(node.name || (node.output[0] as string))}.table`);
    return graph.addInitializer(Tensor.create(name, dataType, dims, data));
  };
  const done = new Set<Node>();
  for (const node of graph.nodes) {
    const [, ids = ''] = node.input;
    const blocks = blockTableAt(graph, node);
    if (blocks !== undefined) {
      const { rows, width, codes, scales } = blocks;
      const table = add(node, scales.dataType, [rows, width], () => valuesOf(blocks));
      edit.replace(node, [makeNode('Gather', [table, ids], node.output, { name: node.name })]);
      for (const head of readers.get(codes.name) ?? []) {
        if (done.has(head) || !readsTable(head, blocks)) continue;
        edit.replace(head, tiedProduct(names, head, table));
        done.add(head);
      }
      done.add(node);
      continue;
    }
    const cast = castRows(graph, node, readers, given);
    if (cast === undefined) continue;
    const table = add(node, DataType.FLOAT, cast.tensor.dims, () => floatValues(cast.tensor));
    edit.replace(cast.node, [makeNode('Gather', [table, ids], cast.node.output, { name: node.name })]);
    edit.replace(node, []);
    done.add(node);
  }
  if (done.size === 0) return source;
  edit.apply();
  dropUnreadWeights(model, readBefore);
  return model;
}

function blockTableAt(graph: Graph, node: Node): BlockTable | undefined {
  if (node.opType !== 'GatherBlockQuantized' || node.domain !== 'com.microsoft') return undefined;
  const [data = '', , scaleName = '', zeroName = ''] = node.input;
  const folded = graph.nodes.find(({ output, opType }) => opType === 'Reshape' && output[0] === data);
  const codes = graph.initializers.get(folded?.input[0] ?? data);
  const scales = graph.initializers.get(scaleName);
  const zeroPoints = zeroName === '' ? undefined : graph.initializers.get(zeroName);
  const [rows = 0, blocks = 0, ...more] = scales?.dims ?? [];
  if (codes === undefined || scales === undefined || more.length > 0) return undefined;
  const bits = intAttribute(node, 'bits') ?? 4;
  const blockSize = intAttribute(node, 'block_size') ?? 128;
  const width = blocks * blockSize;
  // Types of 4 bits have other zero points of their own.
  const plain = codes.dataType === DataType.UINT8 && codes.dims[0] === rows;
  if (!plain || (bits !== 4 && bits !== 8) || codes.byteLength * 8 !== rows * width * bits) return undefined;
  if (scales.dataType !== DataType.FLOAT && scales.dataType !== DataType.FLOAT16) return undefined;
  if (zeroName !== '' && zeroPoints?.dataType !== DataType.UINT8) return undefined;
  const axis = intAttribute(node, 'quantize_axis') ?? 1;
  if ((intAttribute(node, 'gather_axis') ?? 0) !== 0 || (axis !== 1 && axis !== -1)) return undefined;
  return { rows, width, bits, blockSize, codes, scales, zeroPoints };
}

/** Row-major `[rows, width]`. */
async function valuesOf(table: BlockTable): Promise<Float32Array> {
  const { rows, width, bits, blockSize, codes, scales, zeroPoints } = table;
  const packed = await zeroPoints?.bytes();
  const weight = dequantiseBlocks({
    inFeatures: width,
    outFeatures: rows,
    bits,
    blockSize,
    scaleType: scales.dataType === DataType.FLOAT16 ? 'float16' : 'float32',
    codes: await codes.bytes(),
    scales: await floatValues(scales),
    ...(packed === undefined ? {} : { zeroPoints: unpacked(packed, rows, width / blockSize, bits) }),
  });
  return turned(weight, width, rows);
}

/** One code each; of 4 bits two lie in a byte, the first low, each row's beginning a byte of their own. */
function unpacked(packed: Uint8Array, rows: number, blocks: number, bits: 4 | 8): Uint8Array {
  if (bits === 8) return packed;
  const bytes = Math.ceil(blocks / 2);
  return Uint8Array.from({ length: rows * blocks }, (_, i) => {
    const [row, block] = [Math.floor(i / blocks), i % blocks];
    return (packed[row * bytes + (block >> 1)]! >> (4 * (block & 1))) & 15;
  });
}

/** Whether a product's matrix is the table, blocks, scales and zero points alike. */
function readsTable(node: Node, table: BlockTable): boolean {
  const { rows, width, bits, blockSize, codes, scales, zeroPoints } = table;
  const [, matrix = '', scaleName = '', zeroName = '', order = ''] = node.input;
  return (
    node.opType === 'MatMulNBits' &&
    node.domain === 'com.microsoft' &&
    matrix === codes.name &&
    scaleName === scales.name &&
    zeroName === (zeroPoints?.name ?? '') &&
    order === '' &&
    intAttribute(node, 'K') === width &&
    intAttribute(node, 'N') === rows &&
    (intAttribute(node, 'bits') ?? 4) === bits &&
    intAttribute(node, 'block_size') === blockSize
  );
}

function tiedProduct(names: Names, node: Node, table: string): Node[] {
  const label = node.name || (node.output[0] as string);
  const [input = '', , , , , bias = ''] = node.input;
  const matrix = names.fresh(`${table}.transposed`);
  const product = bias === '' ? (node.output[0] as string) : names.fresh(`${node.output[0]}/product`);
  const nodes = [
    makeNode('Transpose', [table], [matrix], {
      name: names.fresh(`${label}/Transpose`),
      attributes: { perm: { ints: [1, 0] } },
    }),
    makeNode('MatMul', [input, matrix], [product], { name: node.name }),
  ];
  if (bias === '') return nodes;
  const sum = { name: names.fresh(`${label}/Add`) };
  return [...nodes, makeNode('Add', [product, bias], node.output, sum)];
}

/** A lookup in a float16 table of which nothing but a cast to float32 reads. */
function castRows(
  graph: Graph,
  node: Node,
  readers: ReadonlyMap<string, readonly Node[]>,
  given: ReadonlySet<string>,
): { readonly tensor: Tensor; readonly node: Node } | undefined {
  if (node.opType !== 'Gather' || (intAttribute(node, 'axis') ?? 0) !== 0) return undefined;
  const tensor = graph.initializers.get(node.input[0] ?? '');
  if (tensor?.dataType !== DataType.FLOAT16 || tensor.dims.length !== 2) return undefined;
  const [output = ''] = node.output;
  const [cast, ...others] = readers.get(output) ?? [];
  if (cast?.opType !== 'Cast' || others.length > 0 || given.has(output)) return undefined;
  return intAttribute(cast, 'to') === DataType.FLOAT ? { tensor, node: cast } : undefined;
}
