import type { LinearMap } from '../../linear/index.js';
import {
  DataType,
  elementType,
  intAttribute,
  makeValueInfo,
  type Node,
  setAttribute,
  shapeOf,
} from '../../onnx/index.js';
import { oneExit } from './exit.js';
import type { MemberBranch } from './members.js';
import type { FreeInputs } from './sameness.js';
import { layOut, type WideBranch } from './wide-branch.js';
import type { Edit } from './wide-group.js';

/** Cache values of one member: key, value. */
type Pair = readonly [key: string, value: string];

/** A norm of each head before attention: reshape, normalise, reshape. */
interface HeadNorm {
  readonly norm: Node;
}

interface FusedAttention {
  readonly node: Node;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headSize: number;
  readonly past: Pair;
  readonly present: Pair;
  /** By input (query, key, value): the map that gives it, and the norm between. One where they are packed. */
  readonly inputs: readonly { readonly entry: number; readonly norm: HeadNorm | undefined }[];
}

/**
 * The attention of all members as one: `GroupQueryAttention` with all members' heads, member by member, where the
 * members have that operator; otherwise each member's own, between one product before and one behind. Both are exact.
 *
 * @param free for the second member and all that follow: what stands for the constants of the first one's
 * @returns the sum of what the members' attentions add to the stream
 */
export async function wideAttention(
  branch: WideBranch,
  free: readonly FreeInputs[],
  edit: Edit,
): Promise<string> {
  const fused = fusedAttentions(branch);
  if (fused === undefined) return apart(branch, 'attention', edit);
  const value = await oneAttention(branch, fused, free, edit);
  return branch.refold('attention/o', await branch.exit('attention/o', value));
}

/**
 * The attention of all members as one up to its heads' outputs, which each member's own last matrix goes on reading:
 * for FFNs that read different sums of them.
 *
 * @param free as above; `undefined` where the members' inner parts are not alike
 */
export async function packedAttention(
  branch: WideBranch,
  free: readonly FreeInputs[] | undefined,
  edit: Edit,
): Promise<void> {
  const fused = free && fusedAttentions(branch);
  if (free === undefined || fused === undefined) return oneEntry(branch, 'attention', edit);
  const value = await oneAttention(branch, fused, free, edit);
  const widths = fused.map(({ heads, headSize }) => heads * headSize);
  const outputs = branch.members.map(({ exit }) => exit.input);
  branch.options.emitter.split('attention/members', value, -1, widths, outputs);
}

/** One product in front of all members' own inner parts, and one behind them. */
export async function apart(branch: WideBranch, name: string, edit: Edit): Promise<string> {
  oneEntry(branch, name, edit);
  return oneExit(branch, `${name}/out`, `${name}/members`);
}

/** One product in front of all members' own inner parts. */
function oneEntry(branch: WideBranch, name: string, edit: Edit): void {
  const { emitter, reader } = branch.options;
  const { members } = branch;
  // Exporters may fold positions anew for each product.
  const inputs = [...new Set(branch.first.entries.map(({ input }) => input))];
  for (const [i, input] of inputs.entries()) {
    const places = branch.first.entries.flatMap((map, k) => (map.input === input ? [k] : []));
    const maps = members.flatMap(({ entries }, member) =>
      places.map((k) => ({ map: entries[k] as LinearMap, member })),
    );
    let at = 0;
    const pieces = maps.map(({ map, member }) => {
      const runs = [{ from: 0, width: map.outFeatures, at }];
      at += map.outFeatures;
      return { map, member, runs };
    });
    const label = `${name}/in${inputs.length === 1 ? '' : `.${i}`}`;
    const read = input === branch.first.norm.output ? branch.normOutput : input;
    const value = branch.entryProduct(label, read, pieces);
    for (const { map } of maps) edit.remove(reader.producers.get(map.output) as Node);
    emitter.split(
      `${label}/members`,
      value,
      -1,
      maps.map(({ map }) => map.outFeatures),
      maps.map(({ map }) => map.output),
    );
  }
}

function fusedAttentions(branch: WideBranch): FusedAttention[] | undefined {
  const found = branch.members.map((member) => fusedAttention(member, branch));
  const [first] = found;
  const alike = found.every(
    (other) =>
      other !== undefined &&
      other.headSize === first?.headSize &&
      other.heads * first.kvHeads === first.heads * other.kvHeads,
  );
  return alike ? (found as FusedAttention[]) : undefined;
}

function fusedAttention(member: MemberBranch, branch: WideBranch): FusedAttention | undefined {
  const { producers } = branch.options.reader;
  const node = producers.get(member.exit.input);
  if (node?.opType !== 'GroupQueryAttention' || node.domain !== 'com.microsoft') return undefined;
  const [query = '', key = '', value = '', pastKey = '', pastValue = ''] = node.input;
  const [, presentKey = '', presentValue = '', ...more] = node.output;
  // Sinks of each head, and scales of a quantised cache, which would have to be put together as well.
  if (node.input.slice(11).some((input) => input !== '') || more.some((output) => output !== ''))
    return undefined;
  const { inputs, outputs } = member.layer.cache;
  if (![pastKey, pastValue].every((name) => inputs.includes(name))) return undefined;
  if (![presentKey, presentValue].every((name) => outputs.includes(name))) return undefined;
  const heads = intAttribute(node, 'num_heads') ?? 0;
  const kvHeads = intAttribute(node, 'kv_num_heads') ?? 0;
  const packed = key === '';
  const traced = (packed ? [query] : [query, key, value]).map((input) => entryOf(member, branch, input));
  if (traced.some((entry) => entry === undefined) || traced.length !== member.entries.length)
    return undefined;
  const width = (member.entries[traced[0]?.entry ?? 0] as LinearMap).outFeatures;
  return {
    node,
    heads,
    kvHeads,
    headSize: width / (packed ? heads + 2 * kvHeads : heads),
    past: [pastKey, pastValue],
    present: [presentKey, presentValue],
    inputs: traced as FusedAttention['inputs'],
  };
}

/** Which map gives an input of attention, and the norm of each head between them. */
function entryOf(
  member: MemberBranch,
  branch: WideBranch,
  value: string,
): FusedAttention['inputs'][number] | undefined {
  const { producers, constants } = branch.options.reader;
  const at = (output: string) => member.entries.findIndex((map) => map.output === output);
  if (at(value) !== -1) return { entry: at(value), norm: undefined };
  const behind = producers.get(value);
  const norm = producers.get(behind?.input[0] ?? '');
  const before = producers.get(norm?.input[0] ?? '');
  const entry = at(before?.input[0] ?? '');
  const shaped = behind?.opType === 'Reshape' && before?.opType === 'Reshape';
  const known = norm?.opType === 'SimplifiedLayerNormalization' || norm?.opType === 'RMSNormalization';
  if (!shaped || !known || entry === -1 || !constants.has(norm.input[1] ?? '')) return undefined;
  return { entry, norm: { norm } };
}

/** @returns the outputs of all heads, member by member */
async function oneAttention(
  branch: WideBranch,
  fused: readonly FusedAttention[],
  free: readonly FreeInputs[],
  edit: Edit,
): Promise<string> {
  const { emitter } = branch.options;
  const [first] = fused as [FusedAttention];
  const packed = first.inputs.length === 1;
  const inputs: string[] = [];
  for (const [i, { entry, norm }] of first.inputs.entries()) {
    const layout = layOut(
      fused.map(({ heads, kvHeads, headSize }) => {
        const [q, kv] = [heads * headSize, kvHeads * headSize];
        return packed ? [q, kv, kv] : [i === 0 ? q : kv];
      }),
    );
    const name = `attention/${packed ? 'qkv' : 'qkv'[i]}`;
    const map = branch.first.entries[entry] as LinearMap;
    const read = map.input === branch.first.norm.output ? branch.normOutput : map.input;
    const value = branch.entry(name, read, entry, layout);
    const heads = fused.map((member) => (i === 0 ? member.heads : member.kvHeads));
    inputs.push(
      norm === undefined
        ? value
        : await headNorm(branch, `${name}_norm`, value, norm, heads, first.headSize, free),
    );
  }
  while (inputs.length < 3) inputs.push('');
  const past = [0, 1].map((k) =>
    emitter.concat(
      `attention/past_${k === 0 ? 'key' : 'value'}`,
      fused.map((member) => member.past[k as 0 | 1]),
      1,
    ),
  );
  const total = (count: (member: FusedAttention) => number) =>
    fused.reduce((sum, member) => sum + count(member), 0);
  const value = branch.repeat('attention', first.node, [...inputs, ...past, ...first.node.input.slice(5)]);
  const node = emitter.nodes.at(-1) as Node;
  setAttribute(node, 'num_heads', { int: total(({ heads }) => heads) });
  setAttribute(node, 'kv_num_heads', { int: total(({ kvHeads }) => kvHeads) });
  for (const k of [0, 1] as const) {
    const label = `attention/present_${k === 0 ? 'key' : 'value'}`;
    const present = emitter.fresh(`${label}/GroupQueryAttention_output`);
    node.output.push(present);
    declareLike(
      branch,
      present,
      first.present[k],
      total(({ kvHeads }) => kvHeads),
    );
    emitter.split(
      label,
      present,
      1,
      fused.map(({ kvHeads }) => kvHeads),
      fused.map((member) => member.present[k]),
    );
  }
  // Their outputs are what the new ones give.
  for (const member of fused) edit.remove(member.node);
  return value;
}

/**
 * Declares the shape of all members' keys or values. Without that ONNX Runtime 1.30 takes what attention gives for as
 * long as what it reads, and refuses to run where it means to use a buffer twice.
 */
function declareLike({ options }: WideBranch, value: string, like: string, kvHeads: number): void {
  const { graph } = options.reader.model;
  const info = graph.outputs.find(({ name }) => name === like);
  const shape = info && shapeOf(info);
  const dataType = info && elementType(info);
  if (shape?.length !== 4 || dataType === undefined) return;
  const dims = shape.map((dim, axis) => {
    if (axis === 1) return kvHeads;
    // However the exporter called it, it is longer than the past.
    return axis === 2 || dim === undefined ? `${value}_${axis}` : dim;
  });
  graph.valueInfo.push(makeValueInfo(value, dataType, dims));
}

/** The norm of each head, with the gain of the head's member. */
async function headNorm(
  branch: WideBranch,
  name: string,
  value: string,
  { norm }: HeadNorm,
  heads: readonly number[],
  headSize: number,
  free: readonly FreeInputs[],
): Promise<string> {
  const { emitter, reader } = branch.options;
  const own = norm.input[1] as string;
  const gains = [own, ...free.map((of) => of.get(norm)?.get(1) ?? own)];
  const numbers = await Promise.all(gains.map((gain) => reader.constants.numbers(gain)));
  const same = numbers.every((gain) => Buffer.compare(bytes(gain), bytes(numbers[0] as Float64Array)) === 0);
  const total = heads.reduce((a, b) => a + b, 0);
  const { dataType } = reader.constants.constants.info(own) ?? { dataType: DataType.FLOAT };
  const split = emitter.node(name, 'Reshape', [
    value,
    emitter.integers(`${name}.heads`, [0, 0, total, headSize]),
  ]);
  const ones = () => emitter.floats(`${name}.ones`, dataType, [headSize], new Float64Array(headSize).fill(1));
  let normed = branch.repeat(name, norm, [split, same ? own : ones()]);
  if (!same) {
    const perHead = Float64Array.from({ length: total * headSize }, (_, i) => {
      let head = Math.floor(i / headSize);
      let member = 0;
      while (head >= (heads[member] as number)) head -= heads[member++] as number;
      return (numbers[member] as Float64Array)[i % headSize] as number;
    });
    const gain = emitter.floats(`${name}.gains`, dataType, [total, headSize], perHead);
    normed = emitter.node(name, 'Mul', [normed, gain]);
  }
  return emitter.node(`${name}/joined`, 'Reshape', [
    normed,
    emitter.integers(`${name}.joined`, [0, 0, total * headSize]),
  ]);
}

function bytes({ buffer, byteOffset, byteLength }: Float64Array): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}
