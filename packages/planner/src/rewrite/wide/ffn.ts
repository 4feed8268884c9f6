import type { LinearMap } from '../../linear/index.js';
import { intAttribute, type Node } from '../../onnx/index.js';
import { apart } from './attention.js';
import { FOLDS } from './members.js';
import type { FreeInputs } from './sameness.js';
import { layOut, type WideBranch } from './wide-branch.js';
import type { Edit } from './wide-group.js';

/** Operators that treat every feature alike, besides constants that have an element for each. */
const ELEMENTWISE = new Set([
  'Abs',
  'Add',
  'BiasGelu',
  'Cast',
  'Clip',
  'Div',
  'Elu',
  'Erf',
  'Exp',
  'FastGelu',
  'Gelu',
  'HardSigmoid',
  'HardSwish',
  'LeakyRelu',
  'Max',
  'Min',
  'Mish',
  'Mul',
  'Neg',
  'Pow',
  'QuickGelu',
  'Reciprocal',
  'Relu',
  'Sigmoid',
  'Softplus',
  'Sqrt',
  'Sub',
  'Tanh',
]);

/**
 * The FFNs of all members as one: gate and up with all members' features side by side, the activation on all at once,
 * and one `down`. Where what lies between is more than an activation, each member keeps its own between one product
 * before and one behind. Both are exact.
 *
 * @param free for the second member and all that follow: what stands for the constants of the first one's
 * @returns the sum of what the members' FFNs add to the stream
 */
export async function wideFfn(branch: WideBranch, free: readonly FreeInputs[], edit: Edit): Promise<string> {
  const activation = await Activation.of(branch);
  if (activation === undefined) return apart(branch, 'ffn', edit);
  const inner = await activation.widen(free);
  return branch.exit('ffn/down', inner);
}

/** What lies between an FFN's first matrices and its last, where it treats all features alike. */
class Activation {
  private constructor(
    readonly branch: WideBranch,
    /** By value: the gate or up that it is, and how many features it has in each member. */
    readonly starts: ReadonlyMap<string, { readonly entry: number; readonly half: number | undefined }>,
    readonly nodes: readonly Node[],
  ) {}

  static async of(branch: WideBranch): Promise<Activation | undefined> {
    const { first } = branch;
    const starts = new Map<string, { entry: number; half: number | undefined }>();
    const cuts = new Set<Node>();
    for (const [entry, map] of first.entries.entries()) starts.set(map.output, { entry, half: undefined });
    if (first.entries.length === 1) {
      const halves = await packedHalves(branch, first.core, first.entries[0] as LinearMap);
      for (const { node, output, half } of halves) {
        cuts.add(node);
        starts.set(output, { entry: 0, half });
      }
    }
    const nodes = first.core.filter((node) => !cuts.has(node));
    const activation = new Activation(branch, starts, nodes);
    return activation.#isElementwise() ? activation : undefined;
  }

  #isElementwise(): boolean {
    const { reader } = this.branch.options;
    const known = new Set(this.starts.keys());
    for (const node of this.nodes) {
      const fold = FOLDS.has(node.opType) && known.has(node.input[0] as string);
      const inputs = node.input.filter((input) => input !== '');
      const fits = inputs.every(
        (input) => known.has(input) || (reader.constants.has(input) && this.#fitsConstant(input)),
      );
      if (!fold && !(ELEMENTWISE.has(node.opType) && fits)) return false;
      known.add(node.output[0] as string);
    }
    return known.has(this.branch.first.exit.input);
  }

  /** One number for all features, or one for each. */
  #fitsConstant(value: string): boolean {
    const { constants } = this.branch.options.reader;
    const dims = constants.constants.info(value)?.dims;
    const size = constants.size(value);
    return size === 1 || (size === this.branch.first.exit.inFeatures && dims?.at(-1) === size);
  }

  async widen(free: readonly FreeInputs[]): Promise<string> {
    const { branch } = this;
    const { emitter } = branch.options;
    const { first, members } = branch;
    const values = new Map<string, string>();
    for (const [k, map] of first.entries.entries()) {
      const halves = [...this.starts].filter(([, { entry, half }]) => entry === k && half !== undefined);
      const widths = members.map(({ entries }) => {
        const { outFeatures } = entries[k] as LinearMap;
        return halves.length === 0 ? [outFeatures] : [outFeatures / 2, outFeatures / 2];
      });
      const layout = layOut(widths);
      const name = first.entries.length === 1 ? 'ffn/in' : `ffn/in.${k}`;
      const value = branch.entry(name, branch.normOutput, k, layout);
      if (halves.length === 0) {
        values.set(map.output, value);
        continue;
      }
      const parts = [0, 1].map((half) => emitter.fresh(`${name}/half.${half}`));
      emitter.split(`${name}/halves`, value, -1, [layout.width / 2, layout.width / 2], parts);
      for (const [output, { half }] of halves) values.set(output, parts[half as number] as string);
    }
    for (const node of this.nodes) {
      const [output] = node.output as [string];
      if (FOLDS.has(node.opType)) {
        values.set(output, values.get(node.input[0] as string) as string);
        continue;
      }
      const inputs: string[] = [];
      for (const [slot, input] of node.input.entries())
        inputs.push(values.get(input) ?? (await this.#constant(node, slot, free)));
      values.set(output, branch.repeat('ffn/act', node, inputs));
    }
    return values.get(first.exit.input) as string;
  }

  /** A constant for all members: as it is where it is one number, otherwise one number for each feature of each. */
  async #constant(node: Node, slot: number, free: readonly FreeInputs[]): Promise<string> {
    const { emitter, reader } = this.branch.options;
    const own = node.input[slot] as string;
    if (own === '' || reader.constants.size(own) === 1) return own;
    const all = [own, ...free.map((of) => of.get(node)?.get(slot) ?? own)];
    const numbers = await Promise.all(all.map((value) => reader.constants.numbers(value)));
    const joined = Float64Array.from(numbers.flatMap((part) => [...part]));
    const { dataType } = reader.constants.constants.info(own) as { dataType: number };
    return emitter.floats(`ffn.act.${node.opType}`, dataType, [joined.length], joined);
  }
}

/** Gate and up of a packed product, where nodes cut its output in two halves; none otherwise. */
async function packedHalves(
  branch: WideBranch,
  core: readonly Node[],
  map: LinearMap,
): Promise<{ node: Node; output: string; half: number }[]> {
  const width = map.outFeatures;
  const values = new Set([map.output]);
  const found: { node: Node; output: string; half: number }[] = [];
  for (const node of core) {
    if (!values.has(node.input[0] as string)) continue;
    if (FOLDS.has(node.opType)) values.add(node.output[0] as string);
    else if (node.opType === 'Split' && node.output.length === 2) {
      const axis = intAttribute(node, 'axis') ?? 0;
      const sizes = await numbersOf(branch, node.input[1] ?? '');
      const halved = sizes === undefined || (sizes[0] === width / 2 && sizes[1] === width / 2);
      if (!halved || !(axis === -1 || axis === 2)) return [];
      found.push(...node.output.map((output, half) => ({ node, output, half })));
    } else if (node.opType === 'Slice') {
      const [starts, ends, axes, steps] = await Promise.all(
        node.input.slice(1, 5).map((input) => numbersOf(branch, input)),
      );
      const axis = axes?.[0];
      const one = starts?.length === 1 && ends?.length === 1 && (steps === undefined || steps[0] === 1);
      if (!one || !(axis === -1 || axis === 2)) return [];
      const [from, to] = [starts[0] as number, Math.min(ends[0] as number, width)];
      if (from === 0 && to === width / 2) found.push({ node, output: node.output[0] as string, half: 0 });
      else if (from === width / 2 && to === width)
        found.push({ node, output: node.output[0] as string, half: 1 });
      else return [];
    } else return [];
  }
  return found.length === 2 ? found : [];
}

async function numbersOf(branch: WideBranch, value: string): Promise<number[] | undefined> {
  const { constants } = branch.options.reader;
  return value !== '' && constants.has(value) ? [...(await constants.numbers(value))] : undefined;
}
