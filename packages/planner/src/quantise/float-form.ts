import { AnatomyError } from '@cqil/core';
import type { SessionOptions } from '@cqil/runtime-gpu';
import { Dataflow } from '../anatomy/dataflow.js';
import { analyze } from '../anatomy/index.js';
import { toHalf } from '../gguf/half.js';
import { AffineReader, isAffine } from '../linear/affine.js';
import { Constants } from '../linear/constants.js';
import { type LinearMap, linearMaps, readMatrix, replaceMatrices } from '../linear/index.js';
import { ComputedData, DataType, type Model, type Node, Tensor } from '../onnx/index.js';

/**
 * A copy of a model in which the matrices that are stored in codes are float ones, read when they are asked for: what
 * they stand for, whatever nodes it takes to compute it (products that read sums of their input's blocks, integer products). The model
 * itself where there are none. A head whose codes a lookup shares stays in them, see `withFloatTables`.
 *
 * @throws AnatomyError where there are some and the model cannot be understood
 */
export async function floatForm(model: Model, session: SessionOptions | undefined): Promise<Model> {
  const reader = new AffineReader(new Dataflow(model.graph), new Constants(model.graph));
  const coded = reader.dataflow.operations.some((operation) => reader.product(operation)?.quantised === true);
  if (!coded) return model;
  const maps = codedMaps(model, reader);
  if (maps.length === 0) return model;
  const zeros = new Float32Array(Math.max(...maps.map((map) => map.inFeatures * map.outFeatures)));
  const replacements = [];
  for (const map of maps) {
    const weight = zeros.subarray(0, map.inFeatures * map.outFeatures);
    const bias = map.hasBias ? (await readMatrix(model, map, session)).bias : undefined;
    replacements.push({ map, weight, bias });
  }
  const copy = replaceMatrices(model, replacements, { storage: 'float' });
  const producers = copy.graph.producers();
  const known = new Set(model.graph.nodes.map(({ name }) => name));
  for (const map of maps) {
    const product = productOf(map, producers);
    const name = product.input[1] as string;
    const { dataType, dims, byteLength } = copy.graph.initializers.get(name) as Tensor;
    const data = new ComputedData(byteLength, async () => {
      const { weight } = await readMatrix(model, map, session);
      const stored = dataType === DataType.FLOAT16 ? toHalf(weight) : weight;
      return new Uint8Array(stored.buffer, stored.byteOffset, stored.byteLength);
    });
    copy.graph.initializers.set(name, Tensor.create(name, dataType, dims, data));
    const old = map.nodes.find((node) =>
      /^(MatMul|Gemm|QLinearMatMul|DynamicQuantizeMatMul)/.test(node.opType),
    );
    if (old !== undefined && old.name !== '') product.name = old.name;
  }
  // They are no refits: what looks for those goes by their names.
  for (const node of copy.graph.nodes) {
    if (!known.has(node.name)) node.name = node.name.replace(/^\/cqil\/refit\//, '/cqil/quantise/');
  }
  return copy;
}

function codedMaps(model: Model, reader: AffineReader): LinearMap[] {
  const anatomy = analyze(model);
  const coded = (nodes: readonly Node[]) =>
    reader.dataflow.operations.some(
      (operation) => nodes.includes(operation.node) && reader.product(operation)?.quantised === true,
    );
  const inLayers = linearMaps(model, anatomy).maps.filter(({ nodes }) => coded(nodes));
  const head = headMap(model, reader, anatomy.logits, anatomy.layers.length);
  return head === undefined ? inLayers : [...inLayers, head];
}

/** What gives the logits, where it is in codes that nothing else reads. */
function headMap(model: Model, reader: AffineReader, logits: string, layers: number): LinearMap | undefined {
  const last = reader.dataflow.producer(logits);
  if (last === undefined) return undefined;
  const near = last.inputs.map((input) => reader.dataflow.producer(input)).filter((one) => one !== undefined);
  const operation = [last, ...near].find((one) => reader.product(one)?.quantised === true);
  const root = operation && reader.product(operation);
  if (operation === undefined || root?.reads !== 'rows') return undefined;
  const shared = model.graph.consumers().get(operation.node.input[1] ?? '') ?? [];
  if (shared.length > 1) return undefined;
  const part = reader.part(reader.beforeSums(root.data) ?? root.data, logits);
  if (!isAffine(part)) return undefined;
  const { input, output, inFeatures, outFeatures, hasBias, nodes } = part;
  return { layer: layers, role: 'o', input, output, inFeatures, outFeatures, hasBias, nodes };
}

/** The product that `replaceMatrices` made: between it and the map's end stand a bias, a cast, folds. */
function productOf(map: LinearMap, producers: ReadonlyMap<string, Node>): Node {
  let node = producers.get(map.output);
  while (node !== undefined && node.opType !== 'MatMul') node = producers.get(node.input[0] ?? '');
  if (node !== undefined) return node;
  throw new AnatomyError('MAP_NOT_FOUND', `The matrix of "${map.output}" was not found again.`, {
    expected: 'the product that was put in its place',
    found: 'none',
  });
}
