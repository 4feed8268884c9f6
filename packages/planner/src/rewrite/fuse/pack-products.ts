import { analyze } from '../../anatomy/index.js';
import { linearMaps } from '../../linear/index.js';
import {
  type AttributeValue,
  DataType,
  describeNode,
  intAttribute,
  type Model,
  makeAttributeTensor,
  makeNode,
  type Node,
  Tensor,
} from '../../onnx/index.js';
import { GraphEdit } from '../graph-edit.js';
import type { Names } from '../names.js';
import { trimmed } from '../skip-norm.js';
import { bytesPerElement, floatWeight, oneAfterTheOther, sideBySide } from './products.js';
import { type FusePass, Refused, Tally } from './types.js';

/** Queries, keys and values of a fused attention from one product, which `GroupQueryAttention` takes as it is. */
export const packQkv: FusePass = async ({ model, names }) => {
  const tally = new Tally('pack-qkv');
  const packer = new Packer(model, names);
  for (const node of model.graph.nodes.filter(
    ({ opType, domain }) => opType === 'GroupQueryAttention' && domain === 'com.microsoft',
  )) {
    const [query = '', key = '', value = ''] = node.input;
    // Packed already.
    if (key === '' && value === '') continue;
    await tally.attempt(() => {
      const prefix = node.name.replace(/GroupQueryAttention$/, 'qkv');
      const { output, nodes } = packer.pack([query, key, value], prefix, describeNode(node));
      const packed = makeNode('GroupQueryAttention', [output, '', '', ...node.input.slice(3)], node.output, {
        name: node.name,
        domain: node.domain,
      });
      packed.attribute = [...node.attribute];
      packer.edit.replace(node, [...nodes, packed]);
    });
  }
  packer.edit.apply();
  return tally.report();
};

/** The products that an FFN begins with (gate and up) as one, cut in two behind it. */
export const packGateUp: FusePass = async ({ model, names }) => {
  const tally = new Tally('pack-gate-up');
  const packer = new Packer(model, names);
  const anatomy = analyze(model);
  const { maps } = linearMaps(model, anatomy);
  for (const { index } of anatomy.layers) {
    const first = maps.filter(({ layer, role }) => layer === index && role === 'gate-up');
    if (first.length < 2) continue;
    await tally.attempt(() => {
      const prefix = `/fused/layer.${index}/gate_up`;
      const last = packer.producer(first[0]?.output ?? '') as Node;
      const { output, nodes, widths } = packer.pack(
        first.map((map) => map.output),
        prefix,
        describeNode(last),
      );
      const sizes = names.fresh(`${prefix}/sizes`);
      const tensor = makeAttributeTensor(
        sizes,
        DataType.INT64,
        [widths.length],
        BigInt64Array.from(widths, BigInt),
      );
      const split = makeNode(
        'Split',
        [output, sizes],
        first.map((map) => map.output),
        { name: names.fresh(`${prefix}/Split`), attributes: { axis: { int: -1 } } },
      );
      packer.edit.replace(last, [
        ...nodes,
        makeNode('Constant', [], [sizes], {
          name: names.fresh(`${sizes}/Constant`),
          attributes: { value: { tensor } },
        }),
        split,
      ]);
      for (const map of first.slice(1)) packer.edit.replace(packer.producer(map.output) as Node, []);
    });
  }
  packer.edit.apply();
  return tally.report();
};

interface Product {
  readonly node: Node;
  readonly bias: Tensor | undefined;
  readonly width: number;
}

interface Packed {
  readonly output: string;
  readonly nodes: readonly Node[];
  readonly widths: readonly number[];
}

/** Makes one product of several that read the same value. */
class Packer {
  readonly edit: GraphEdit;
  readonly #producers: ReadonlyMap<string, Node>;

  constructor(
    readonly model: Model,
    readonly names: Names,
  ) {
    this.edit = new GraphEdit(model.graph);
    this.#producers = model.graph.producers();
  }

  producer(value: string): Node | undefined {
    return this.#producers.get(value);
  }

  /**
   * @param values what the products give, their biases added
   * @throws Refused
   */
  pack(values: readonly string[], prefix: string, place: string): Packed {
    const products = values.map((value) => this.#product(value, place));
    const [first] = products as [Product, ...Product[]];
    const other = products.find(
      ({ node }) => node.input[0] !== first.node.input[0] || node.opType !== first.node.opType,
    );
    if (other !== undefined)
      throw refused(describeNode(other.node), 'products of one value, of one kind', describeNode(first.node));
    const nodes: Node[] = [];
    const product = this.names.fresh(`${prefix}/${first.node.opType}_output_0`);
    nodes.push(
      first.node.opType === 'MatMul'
        ? this.#floats(products, product, prefix)
        : this.#blocks(products, product, prefix),
    );
    const widths = products.map(({ width }) => width);
    const bias = this.#bias(products, prefix, describeNode(first.node));
    if (bias === undefined) return { output: product, nodes, widths };
    const output = this.names.fresh(`${prefix}/Add_output_0`);
    nodes.push(makeNode('Add', [product, bias], [output], { name: this.names.fresh(`${prefix}/Add`) }));
    return { output, nodes, widths };
  }

  #product(value: string, place: string): Product {
    const { graph } = this.model;
    const maker = this.#producers.get(value);
    if (maker === undefined) throw refused(place, 'products with weights', `the input "${value}"`);
    if (maker.opType !== 'Add') return { node: maker, bias: undefined, width: this.#width(maker) };
    const at = maker.input.findIndex((input) => graph.initializers.get(input)?.dims.length === 1);
    const node = this.#producers.get(maker.input[1 - at] ?? '');
    if (at === -1 || node === undefined)
      throw refused(describeNode(maker), 'a product with a weight, and a bias at most', maker.opType);
    return { node, bias: graph.initializers.get(maker.input[at] ?? ''), width: this.#width(node) };
  }

  #width(node: Node): number {
    const weight = floatWeight(this.model.graph, this.#producers, node);
    if (weight !== undefined) return weight.outFeatures;
    if (node.opType === 'MatMulNBits') {
      const stored = node.input
        .slice(1)
        .every((input) => input === '' || this.model.graph.initializers.has(input));
      const width = intAttribute(node, 'N');
      if (stored && width !== undefined && (node.input[4] ?? '') === '') return width;
    }
    throw refused(describeNode(node), 'a product with a weight in floating point or in blocks', node.opType);
  }

  #floats(products: readonly Product[], output: string, prefix: string): Node {
    const weights = products.map(
      ({ node }) =>
        floatWeight(this.model.graph, this.#producers, node) as NonNullable<ReturnType<typeof floatWeight>>,
    );
    const types = new Set(weights.map(({ tensor }) => tensor.dataType));
    const [{ node: first }] = products as [Product, ...Product[]];
    if (types.size > 1) throw refused(describeNode(first), 'weights of one type', `${types.size} types`);
    const weight = this.model.graph.addInitializer(sideBySide(this.#weightName(prefix, 'weight'), weights));
    return makeNode('MatMul', [first.input[0] as string, weight], [output], {
      name: this.names.fresh(`${prefix}/MatMul`),
    });
  }

  #blocks(products: readonly Product[], output: string, prefix: string): Node {
    const [{ node: first }] = products as [Product, ...Product[]];
    const same = ['K', 'bits', 'block_size', 'accuracy_level'];
    const settings = (node: Node) => same.map((name) => intAttribute(node, name)).join();
    const given = (node: Node) => node.input.map((input) => input !== '').join();
    const other = products.find(
      ({ node }) => settings(node) !== settings(first) || given(node) !== given(first),
    );
    if (other !== undefined)
      throw refused(describeNode(other.node), `blocks as those of ${describeNode(first)}`, 'other ones');
    const parts = ['weight_codes', 'weight_scales', 'weight_zero_points', '', 'bias'];
    const inputs = parts.map((part, i) => {
      if ((first.input[i + 1] ?? '') === '') return '';
      const tensors = products.map(
        ({ node }) => this.model.graph.initializers.get(node.input[i + 1] ?? '') as Tensor,
      );
      return this.model.graph.addInitializer(oneAfterTheOther(this.#weightName(prefix, part), tensors));
    });
    const node = makeNode('MatMulNBits', trimmed([first.input[0] as string, ...inputs]), [output], {
      name: this.names.fresh(`${prefix}/MatMulNBits`),
      domain: 'com.microsoft',
    });
    const width: AttributeValue = { int: products.reduce((sum, product) => sum + product.width, 0) };
    const sized = makeNode('MatMulNBits', [], [], { name: 'N', attributes: { N: width } });
    node.attribute = [...first.attribute.filter(({ name }) => name !== 'N'), ...sized.attribute];
    return node;
  }

  /** The biases one after the other, zeros where a product has none. */
  #bias(products: readonly Product[], prefix: string, place: string): string | undefined {
    const types = new Set(products.flatMap(({ bias }) => (bias === undefined ? [] : [bias.dataType])));
    const [type] = types;
    if (type === undefined) return undefined;
    if (types.size > 1) throw refused(place, 'biases of one type', `${types.size} types`);
    const tensors = products.map(({ bias, width }) => {
      if (bias !== undefined && bias.dims[0] !== width)
        throw refused(place, `a bias of ${width}`, `one of ${bias.dims[0]}`);
      const zeros = () => new Uint8Array(width * bytesPerElement({ dataType: type }));
      return bias ?? Tensor.create('zeros', type, [width], zeros());
    });
    return this.model.graph.addInitializer(oneAfterTheOther(this.#weightName(prefix, 'bias'), tensors));
  }

  #weightName(prefix: string, name: string): string {
    return this.names.fresh(`${prefix.replace(/^\//, '').replaceAll('/', '.')}.${name}`);
  }
}

function refused(node: string, expected: string, found: string): Refused {
  return new Refused({ node, expected, found });
}
