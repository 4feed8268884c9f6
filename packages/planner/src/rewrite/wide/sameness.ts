import { toBinary } from '@bufbuild/protobuf';
import { AttributeProtoSchema } from '../../onnx/gen/onnx_pb.js';
import {
  type Attribute,
  describeNode,
  type Graph,
  type Node,
  nodeInputs,
  operatorName,
} from '../../onnx/index.js';
import { subgraphs } from '../../onnx/model.js';
import type { ConstantReader } from './constant-reader.js';

/** Where two computations differ. */
export interface Difference {
  /** In words, without a full stop. */
  readonly reason: string;
}

export interface SamenessOptions {
  /** Values of the first computation, and what stands for each in the second. */
  readonly seeds: ReadonlyMap<string, string>;
  /** Whether an input of a node of the first may be another constant in the second. */
  readonly free: (node: Node, slot: number) => boolean;
}

/** What `free` inputs of the first computation's nodes are in the second: by node, then by place. */
export type FreeInputs = ReadonlyMap<Node, ReadonlyMap<number, string>>;

/**
 * Whether two values of a graph are computed in the same way: the same operators with the same attributes, on values
 * that are the same or stand for each other, back to the graph's inputs and its constants. Constants are compared by
 * their elements, whatever holds them.
 */
export class Sameness {
  readonly #producers: ReadonlyMap<string, Node>;

  constructor(
    graph: Graph,
    readonly constants: ConstantReader,
  ) {
    this.#producers = graph.producers();
  }

  async compare(first: string, second: string, options: SamenessOptions): Promise<FreeInputs | Difference> {
    const walk = new Walk(this.#producers, this.constants, options);
    const difference = await walk.values(first, second);
    return difference ?? walk.free;
  }
}

export function isDifference(found: FreeInputs | Difference): found is Difference {
  return 'reason' in found;
}

class Walk {
  readonly free = new Map<Node, Map<number, string>>();
  readonly #same = new Set<string>();

  constructor(
    readonly producers: ReadonlyMap<string, Node>,
    readonly constants: ConstantReader,
    readonly options: SamenessOptions,
  ) {}

  async values(first: string, second: string): Promise<Difference | undefined> {
    const key = `${first}\0${second}`;
    if (first === second || this.options.seeds.get(first) === second || this.#same.has(key)) return undefined;
    const difference = await this.#different(first, second);
    if (difference === undefined) this.#same.add(key);
    return difference;
  }

  async #different(first: string, second: string): Promise<Difference | undefined> {
    if (first === '' || second === '')
      return { reason: `one has no input where the other reads "${first || second}"` };
    const constant = [first, second].map((value) => this.constants.has(value));
    if (constant.every(Boolean)) return this.#constants(first, second);
    const [left, right] = [this.producers.get(first), this.producers.get(second)];
    if (left === undefined || right === undefined || constant.some(Boolean)) {
      return { reason: `one reads "${first}", the other "${second}"` };
    }
    if (left.output.indexOf(first) !== right.output.indexOf(second)) {
      return { reason: `they read different outputs of ${describeNode(left)} and ${describeNode(right)}` };
    }
    return this.#nodes(left, right);
  }

  async #nodes(left: Node, right: Node): Promise<Difference | undefined> {
    const other = { reason: `one computes ${describeNode(left)}, the other ${describeNode(right)}` };
    if (operatorName(left) !== operatorName(right)) return other;
    const attribute = differentAttribute(left, right);
    if (attribute !== undefined) return { reason: attribute };
    // Subgraphs are compared whole, by their attributes; what they capture must be the same values.
    if (subgraphs(left).length > 0 && nodeInputs(left).join('\0') !== nodeInputs(right).join('\0'))
      return other;
    const count = Math.max(left.input.length, right.input.length);
    for (let slot = 0; slot < count; slot++) {
      const [a = '', b = ''] = [left.input[slot], right.input[slot]];
      if (a !== '' && b !== '' && this.options.free(left, slot) && this.#alike(a, b)) {
        const slots = this.free.get(left) ?? new Map<number, string>();
        this.free.set(left, slots.set(slot, b));
        continue;
      }
      const difference = await this.values(a, b);
      if (difference !== undefined) return difference;
    }
    return undefined;
  }

  #alike(first: string, second: string): boolean {
    return this.constants.has(first) && this.constants.has(second);
  }

  async #constants(first: string, second: string): Promise<Difference | undefined> {
    const [a, b] = [await this.constants.read(first), await this.constants.read(second)];
    const same =
      a.type === b.type && a.dims.join() === b.dims.join() && Buffer.compare(a.bytes, b.bytes) === 0;
    return same ? undefined : { reason: `the constants "${first}" and "${second}" differ` };
  }
}

function differentAttribute(left: Node, right: Node): string | undefined {
  const names = new Set([...left.attribute, ...right.attribute].map(({ name }) => name));
  for (const name of [...names].sort()) {
    const [a, b] = [left, right].map((node) => node.attribute.find((attribute) => attribute.name === name));
    if (a !== undefined && b !== undefined && bytesOf(a) === bytesOf(b)) continue;
    const show = (attribute: Attribute | undefined) =>
      attribute === undefined ? 'absent' : shownValue(attribute);
    return `${describeNode(left)} has ${name} ${show(a)}, ${describeNode(right)} ${show(b)}`;
  }
  return undefined;
}

function bytesOf(attribute: Attribute): string {
  return Buffer.from(toBinary(AttributeProtoSchema, attribute)).toString('base64');
}

function shownValue(attribute: Attribute): string {
  if (attribute.ints.length > 0) return `[${attribute.ints.join(', ')}]`;
  if (attribute.s.byteLength > 0) return `"${Buffer.from(attribute.s).toString('utf8')}"`;
  return attribute.f === 0 ? String(attribute.i) : String(attribute.f);
}
