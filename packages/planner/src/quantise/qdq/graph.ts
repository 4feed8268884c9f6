import { DataType, type Model, makeNode, type Node, Tensor } from '../../onnx/index.js';
import { GraphEdit } from '../../rewrite/graph-edit.js';
import type { Names } from '../../rewrite/names.js';
import { dropUnreadWeights, readValues } from '../../rewrite/unread-weights.js';
import type { ChannelCodes, CodeBits } from './codes.js';

/** A step as the graph holds it, for every value that has it. */
export interface StoredStep {
  readonly scale: string;
  readonly zeroPoint: string;
  readonly bits: CodeBits;
  readonly step: number;
}

/**
 * A graph in which values are put through `QuantizeLinear` and `DequantizeLinear`. What is put in takes effect at once,
 * but for the order of nodes and for weights that nothing reads any more: see `finish`.
 */
export class QdqGraph {
  readonly #zeroPoints = new Map<CodeBits, string>();
  readonly #readBefore: ReturnType<typeof readValues>;
  readonly #edit: GraphEdit;

  /** @param model changed */
  constructor(
    readonly model: Model,
    readonly names: Names,
  ) {
    this.#readBefore = readValues(model);
    this.#edit = new GraphEdit(model.graph);
  }

  addStep(label: string, step: number, bits: CodeBits): StoredStep {
    const scale = this.#tensor(`${label}.scale`, DataType.FLOAT, [], Float32Array.of(step));
    return { scale, zeroPoint: this.#zeroPoint(bits), bits, step };
  }

  /** @returns the value behind both, under a name of its own unless `output` gives one */
  pair(value: string, step: StoredStep, output?: string): string {
    const codes = this.names.fresh(`${output ?? value}/codes`);
    const quantise = makeNode('QuantizeLinear', [value, step.scale, step.zeroPoint], [codes], {
      name: this.names.fresh(`/cqil/qdq/${value}/QuantizeLinear`),
    });
    this.model.graph.addNode(quantise);
    return this.dequantised(codes, step, output ?? this.names.fresh(`${value}/quantised`));
  }

  /** Puts a pair behind what makes a value: all that reads the value reads what is left of it. */
  through(value: string, maker: Node, step: StoredStep): void {
    const whole = this.names.fresh(`${value}/whole`);
    maker.output = maker.output.map((output) => (output === value ? whole : output));
    this.pair(whole, step, value);
  }

  dequantised(codes: string, step: StoredStep, output: string): string {
    const node = makeNode('DequantizeLinear', [codes, step.scale, step.zeroPoint], [output], {
      name: this.names.fresh(`/cqil/qdq/${output}/DequantizeLinear`),
    });
    this.model.graph.addNode(node);
    return output;
  }

  /**
   * Codes of a table, looked up instead of what they stand for.
   *
   * @returns the codes found
   */
  lookup(node: Node, codes: Int8Array | Int16Array, dims: readonly number[], step: StoredStep): string {
    const label = `${node.name || node.output[0]}`.replace(/^\//, '').replaceAll('/', '.');
    const type = step.bits === 8 ? DataType.INT8 : DataType.INT16;
    const table = this.#tensor(`${label}.codes`, type, dims, codes);
    const [value = ''] = node.output;
    const found = this.names.fresh(`${value}/codes`);
    node.input = [table, node.input[1] as string];
    node.output = [found];
    this.dequantised(found, step, value);
    return found;
  }

  /** A matrix in bytes, dequantised by outputs, `[inFeatures, outFeatures]`. */
  matrix(label: string, inFeatures: number, { codes, scales }: ChannelCodes): string {
    const outFeatures = scales.length;
    const stored = this.#tensor(`${label}.weight_codes`, DataType.INT8, [inFeatures, outFeatures], codes);
    const scale = this.#tensor(`${label}.weight_scales`, DataType.FLOAT, [outFeatures], scales);
    const zeros = this.#tensor(
      `${label}.weight_zeros`,
      DataType.INT8,
      [outFeatures],
      new Int8Array(outFeatures),
    );
    const output = this.names.fresh(`${label}.weight`);
    const node = makeNode('DequantizeLinear', [stored, scale, zeros], [output], {
      name: this.names.fresh(`/cqil/qdq/${label}.weight/DequantizeLinear`),
      attributes: { axis: { int: 1 } },
    });
    this.model.graph.addNode(node);
    return output;
  }

  /** Puts the nodes in order, and takes away what nothing needs any more. */
  finish(): void {
    this.#edit.apply();
    dropUnreadWeights(this.model, this.#readBefore);
  }

  #zeroPoint(bits: CodeBits): string {
    let name = this.#zeroPoints.get(bits);
    if (name === undefined) {
      const [type, zero] = bits === 8 ? [DataType.INT8, Int8Array.of(0)] : [DataType.INT16, Int16Array.of(0)];
      name = this.#tensor(`cqil.qdq.zero_int${bits}`, type, [], zero);
      this.#zeroPoints.set(bits, name);
    }
    return name;
  }

  #tensor(name: string, type: number, dims: readonly number[], data: ArrayBufferView): string {
    return this.model.graph.addInitializer(Tensor.create(this.names.fresh(name), type, dims, data));
  }
}
