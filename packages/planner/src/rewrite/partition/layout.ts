import { type Model, type Node, nodeInputs } from '../../onnx/index.js';
import { type GroupJoint, groupJoints } from './joints.js';

/** A part before it is cut: where it runs, and what it may give to those behind it. */
export interface PlannedPart {
  readonly name: string;
  /** For people. */
  readonly holds: string;
  readonly devices: readonly string[];
  /** A part reads what parts of earlier stages give, never of its own. */
  readonly stage: number;
  readonly provides: readonly string[];
}

export interface PlannedGroup {
  readonly layers: readonly number[];
  readonly bypass: number | 'full';
  /** How often branches wait for each other, what joins them included. */
  readonly exchanges: number;
}

export interface Layout {
  readonly parts: readonly PlannedPart[];
  readonly groups: readonly PlannedGroup[];
}

export interface LayoutOptions {
  readonly devices: readonly string[];
  /** Whether what is in no group runs on the threads of all devices; else on the first device alone. */
  readonly spread: boolean;
}

/**
 * Which parts a planned graph is cut into.
 *
 * What is in no group is the trunk, a part for each run of it. Branch k of each group is a part on device k (counted
 * round where a group has more branches). A branch is cut in two, attention and FFN, only where another branch reads its
 * attention or its FFN another branch's: then the group's branches wait for each other twice, else once. The sums that
 * join a group's branches, and the norms behind them, go into every part that reads them: each device adds up what it
 * gets by itself, so that between two groups nothing goes to the trunk and back.
 */
export function layOut(model: Model, options: LayoutOptions): Layout {
  const joints = groupJoints(model);
  const [first] = options.devices;
  const trunk = options.spread ? options.devices : [first as string];
  const parts: PlannedPart[] = [];
  let stage = 0;
  let before = 0;
  const segment = (provides: readonly string[], next: number | undefined) => {
    const layers = next === undefined ? `layers from ${before} on and the head` : span(before, next - 1);
    const holds = parts.length === 0 && next !== undefined ? `the embedding, ${layers}` : layers;
    parts.push({ name: `trunk.${stage}`, holds, devices: trunk, stage: stage++, provides });
  };

  for (const [index, joint] of joints.entries()) {
    const { group, branches } = joint;
    const start = group.layers[0] as number;
    const border = outputsOf(joint.before);
    const adjacent = index > 0 && start === before;
    if (!adjacent) segment(index === 0 ? [...border, ...preliminaries(model)] : border, start);
    const own = adjacent ? border : [];
    const twice = branches.some(({ exchanges }) => exchanges);
    const device = (k: number) => [options.devices[k % options.devices.length] as string];
    const name = (k: number) => `group.${index}.branch.${k}`;
    const halves = branches.map(({ exchanges, attention }) => exchanges && attention !== undefined);
    branches.forEach(({ attention, ffn, exchanges }, k) => {
      if (exchanges && attention === undefined) return;
      const layer = group.layers[k];
      parts.push({
        name: halves[k] ? `${name(k)}.attention` : name(k),
        holds: halves[k] ? `attention of layer ${layer}` : `layer ${layer}`,
        devices: device(k),
        stage,
        provides: [...defined([attention, halves[k] ? undefined : ffn]), ...own],
      });
    });
    stage += 1;
    if (twice) {
      branches.forEach(({ ffn, exchanges }, k) => {
        if (!exchanges || ffn === undefined) return;
        const holds = `FFN of layer ${group.layers[k]}`;
        parts.push({ name: `${name(k)}.ffn`, holds, devices: device(k), stage, provides: [ffn] });
      });
      stage += 1;
    }
    before = (group.layers.at(-1) as number) + 1;
  }
  segment([], undefined);
  return {
    parts,
    groups: joints.map((joint) => ({
      layers: joint.group.layers,
      bypass: joint.group.bypass,
      exchanges: exchangesOf(joint),
    })),
  };
}

function exchangesOf({ branches }: GroupJoint): number {
  return branches.some(({ exchanges }) => exchanges) ? 2 : 1;
}

function span(first: number, last: number): string {
  if (last < first) return 'no layer';
  return first === last ? `layer ${first}` : `layers ${first} to ${last}`;
}

function outputsOf(node: Node): string[] {
  return node.output.filter((output) => output !== '');
}

function defined(values: readonly (string | undefined)[]): string[] {
  return values.filter((value) => value !== undefined);
}

/**
 * Values that every layer's attention reads and that depend on nothing but masks, positions and the inputs' shapes:
 * computed once, by the first part, instead of by each.
 */
function preliminaries(model: Model): string[] {
  const { graph } = model;
  const feeds = new Set(graph.feeds.map(({ name }) => name));
  const plain = new Set([...feeds].filter((name) => !/^(past[._]|input_ids$|inputs_embeds$)/.test(name)));
  const ready = new Set<string>();
  const frontier = new Set<string>();
  for (const node of graph.nodes) {
    const inputs = nodeInputs(node);
    const shapes = node.opType === 'Shape' || node.opType === 'Size';
    const known = (name: string) =>
      ready.has(name) || plain.has(name) || graph.initializers.has(name) || (shapes && feeds.has(name));
    const varies = inputs.some((name) => ready.has(name) || feeds.has(name));
    if (varies && inputs.every(known)) {
      for (const output of outputsOf(node)) ready.add(output);
      continue;
    }
    for (const name of inputs) if (ready.has(name)) frontier.add(name);
  }
  return [...frontier];
}
