import { validatePlan } from '../plan/parse.js';
import { effectiveBypass, planSteps } from '../plan/steps.js';
import type { Plan, PlanGroup } from '../plan/types.js';
import { assignBranches } from './assign.js';
import type { Exchange } from './exchange.js';
import {
  attentionKernels,
  embeddingKernels,
  ffnKernels,
  headKernels,
  headRows,
  joinKernels,
  type Kernel,
  type LayerPart,
  layerPart,
  type Pass,
} from './kernels.js';
import { checkPlacement, type Placement } from './placement.js';
import { type DeviceProfile, deviceOf, type MachineProfile } from './profile.js';
import { kernelCost } from './roofline.js';
import { layerParameters, type ModelShape } from './shape.js';

/** Kernels that a device runs one after the other. */
export interface KernelsOp {
  readonly kind: 'kernels';
  /** For people: `layer 3 attention`. */
  readonly name: string;
  /** Which device, by place in the program's list. */
  readonly device: number;
  /** Which of the device's branches of the group, from 0: branches of one device may run in streams of their own. */
  readonly stream: number;
  /** True for a branch's ops: they wait for their own stream only. All else waits for all streams of the device. */
  readonly forks: boolean;
  /** True where a run of the runtime begins: at the start, and after each exchange. */
  readonly startsRun: boolean;
  readonly kernels: readonly Kernel[];
}

/** An exchange that all its devices take part in; none goes on before it has ended. */
export interface ExchangeOp {
  readonly kind: 'exchange';
  readonly name: string;
  readonly devices: readonly number[];
  readonly exchange: Exchange;
}

export type Op = KernelsOp | ExchangeOp;

/** What an executor does in one pass: each device goes through the ops that name it, in order. */
export interface Program {
  readonly profile: MachineProfile;
  /** Ids of devices, in the order of the teams; the first has the result. */
  readonly devices: readonly string[];
  readonly ops: readonly Op[];
  /** The team of each branch, by group. */
  readonly assignment: readonly (readonly number[])[];
  /** Bytes of weights and key-value cache on each device. */
  readonly memoryBytes: readonly number[];
}

export interface ProgramOptions {
  readonly plan: Plan;
  readonly shape: ModelShape;
  readonly placement: Placement;
  readonly profile: MachineProfile;
  readonly pass: Pass;
}

/**
 * What the executor does for a plan, as the predictor and the simulator both read it.
 *
 * - A group of form `branches` (or `packed`): attention of each branch on its team, FFN of each branch, one all-reduce of
 *   the sums over all devices that took part; and where the runtime's kernels do not do so by the way, the adds that
 *   join the branches. Bypass is an exchange more between the two, where the branches concerned
 *   are on different teams: what attention gives is sent on to the next `d` branches, or, for "full", all-reduced.
 * - A group of form `wide`: one layer of all members' heads and features, split among the devices of all teams.
 * - A layer that is split among devices: an all-reduce behind its attention and one behind its FFN.
 * - Devices that have not got the stream when a group begins get it by a broadcast.
 *
 * @throws UsageError `PLACEMENT_INVALID`, `PROFILE_NO_DEVICE`, `PLACEMENT_MEMORY`
 * @throws PlanError `PLAN_LAYER_COUNT` where plan and shape do not belong together
 */
export function buildProgram({ plan, shape, placement, profile, pass }: ProgramOptions): Program {
  validatePlan(plan, { layers: shape.layers });
  checkPlacement(
    placement,
    profile,
    plan.groups.map(({ layers }) => layers.length),
  );
  const ungrouped = planSteps(plan).filter((step) => step.length === 1).length;
  const builder = new Builder(shape, placement, profile, pass, ungrouped);
  builder.embedding();
  const groups = new Map(plan.groups.map((group, index) => [group.layers[0]!, { group, index }]));
  for (const [first] of planSteps(plan)) {
    const found = groups.get(first!);
    if (found === undefined) builder.layer(first!);
    else if (found.group.form === 'wide') builder.wide(found.group);
    else builder.branches(found.group, placement.assignment?.[found.index]);
  }
  builder.head();
  return builder.program();
}

class Builder {
  private readonly devices: readonly string[];
  /** Places of each team's devices in the program's list. */
  private readonly teams: readonly (readonly number[])[];
  /** Devices that compute what is in no group. */
  private readonly home: readonly number[];
  private readonly everyone: readonly number[];
  private readonly ops: Op[] = [];
  private readonly made = new Map<string, readonly Kernel[]>();
  private readonly assignment: number[][] = [];
  private readonly memory: number[];
  /** Devices that have the current residual stream; those of `home` always do. */
  private holders: Set<number>;
  /** Devices whose next kernels begin a run. */
  private readonly fresh: Set<number>;
  /** Bytes of the residual stream. */
  private readonly streamBytes: number;
  /** Bytes that devices still keep free for what is in no group. */
  private readonly reserved: number[];

  constructor(
    private readonly shape: ModelShape,
    placement: Placement,
    private readonly profile: MachineProfile,
    private readonly pass: Pass,
    ungrouped: number,
  ) {
    this.devices = placement.teams.flat();
    let next = 0;
    this.teams = placement.teams.map((team) => team.map(() => next++));
    this.everyone = this.devices.map((_, i) => i);
    this.home = placement.ungrouped === 'split' ? this.everyone : this.teams[0]!;
    this.memory = this.devices.map(() => 0);
    this.holders = new Set(this.home);
    this.fresh = new Set(this.everyone);
    this.streamBytes = pass.tokens * shape.hidden * shape.activationBytes;
    const reserve = ungrouped * this.layerBytes(this.home.length, 1);
    this.reserved = this.everyone.map((device) => (this.home.includes(device) ? reserve : 0));
  }

  program(): Program {
    const { profile, devices, ops, assignment, memory } = this;
    return { profile, devices, ops, assignment, memoryBytes: memory };
  }

  embedding(): void {
    const { vocabulary, hidden, headBits, tied } = this.shape;
    const bytes = (vocabulary * hidden * headBits) / 8;
    for (const device of this.home) {
      this.memory[device]! += bytes + (tied ? 0 : bytes / this.home.length);
      this.kernels('embedding', device, embeddingKernels(this.shape, this.pass));
    }
  }

  head(): void {
    const { shape, pass, home } = this;
    for (const device of home) this.kernels('head', device, headKernels(shape, pass, home.length));
    this.exchange('logits', 'all-gather', home, headRows(pass) * shape.vocabulary * shape.activationBytes);
  }

  layer(layer: number): void {
    const bytes = this.layerBytes(this.home.length, 1);
    for (const device of this.home) this.reserved[device]! -= bytes;
    this.split(`layer ${layer}`, this.home, 1);
  }

  wide({ layers }: PlanGroup): void {
    const devices = this.everyone;
    this.assignment.push(layers.map(() => 0));
    this.bring(devices);
    this.split(`layers ${layers[0]}–${layers.at(-1)} wide`, devices, layers.length);
  }

  branches(group: PlanGroup, given: readonly number[] | undefined): void {
    const { layers } = group;
    const teams = given === undefined ? this.assign(layers.length) : [...given];
    this.assignment.push(teams);
    const used = this.teams.filter((_, team) => teams.includes(team));
    const devices = used.flat();
    this.bring(devices);
    const bypass = effectiveBypass(group);
    const reached = bypass === 0 ? [] : bypassPairs(teams, bypass);
    const branches = layers.map((layer, branch) => ({
      name: `layer ${layer}`,
      team: this.teams[teams[branch]!]!,
      stream: teams.slice(0, branch).filter((team) => team === teams[branch]).length,
    }));
    for (const { team } of branches) this.keep(team, 1);
    const shared = bypass === 'full' && reached.length > 0;
    for (const { name, team, stream } of branches) {
      this.attention(name, team, stream, layerPart(this.shape, team.length));
      // A full bypass sums over everyone below, the team's own parts with it.
      if (!shared) this.exchange(`${name} attention`, 'all-reduce', team, this.streamBytes);
      if (bypass === 0) this.ffn(name, team, stream, layerPart(this.shape, team.length));
    }
    if (bypass !== 0) {
      if (reached.length > 0) this.bypass(layers, devices, teams, reached, shared);
      else this.join(devices);
      for (const [branch, { name, team, stream }] of branches.entries()) {
        // What the branch's own attention gave goes in with the residual; each branch but the first reads another's.
        if (branch > 0) this.adds(`${name} bypass`, team, 1, stream);
        this.ffn(name, team, stream, layerPart(this.shape, team.length));
      }
    }
    this.join(devices);
    // What comes next may be in no group, so its devices get the sum even where they had no branch.
    const receivers = [...new Set([...this.home, ...devices])].sort((a, b) => a - b);
    const sum = `layers ${layers[0]}–${layers.at(-1)} sum`;
    this.exchange(sum, 'all-reduce', receivers, this.streamBytes);
    // Two values of each branch; every receiver adds them up by itself.
    this.adds(sum, receivers, 2 * layers.length - 1);
    this.holders = new Set(receivers);
  }

  /** Attention outputs to the branches that read them. */
  private bypass(
    layers: readonly number[],
    devices: readonly number[],
    teams: readonly number[],
    reached: readonly (readonly [from: number, to: number])[],
    shared: boolean,
  ): void {
    const name = `layers ${layers[0]}–${layers.at(-1)} bypass`;
    if (shared) {
      this.exchange(name, 'all-reduce', devices, this.streamBytes);
      return;
    }
    const pairs = reached.flatMap(([from, to]) => {
      const [sender, receiver] = [this.teams[teams[from]!]!, this.teams[teams[to]!]!];
      return receiver.map((device, i) => [sender[i % sender.length]!, device] as const);
    });
    const sent = layers.map((_, from) => reached.filter((pair) => pair[0] === from).length);
    this.exchange(name, 'send', devices, Math.max(...sent) * this.streamBytes, pairs);
  }

  /** Layers side by side as one, split among devices: an all-reduce behind attention and one behind the FFN. */
  private split(name: string, devices: readonly number[], layers: number): void {
    const part = layerPart(this.shape, devices.length, layers);
    this.keep(devices, layers);
    this.attention(name, devices, undefined, part);
    this.exchange(`${name} attention`, 'all-reduce', devices, this.streamBytes);
    this.ffn(name, devices, undefined, part);
    this.exchange(`${name} ffn`, 'all-reduce', devices, this.streamBytes);
    this.holders = new Set(devices);
  }

  private attention(
    name: string,
    devices: readonly number[],
    stream: number | undefined,
    part: LayerPart,
  ): void {
    const kernels = this.kernelsOf('attention', part);
    for (const device of devices) this.kernels(`${name} attention`, device, kernels, stream);
  }

  private ffn(name: string, devices: readonly number[], stream: number | undefined, part: LayerPart): void {
    const kernels = this.kernelsOf('ffn', part);
    for (const device of devices) this.kernels(`${name} ffn`, device, kernels, stream);
  }

  /** Layers have the same few parts, so their kernels are made, and priced by who reads the program, once. */
  private kernelsOf(block: 'attention' | 'ffn', part: LayerPart): readonly Kernel[] {
    const key = `${block} ${part.heads} ${part.kvHeads} ${part.ffn}`;
    const known = this.made.get(key);
    if (known !== undefined) return known;
    const make = block === 'attention' ? attentionKernels : ffnKernels;
    const kernels = make(this.shape, this.pass, part);
    this.made.set(key, kernels);
    return kernels;
  }

  /** @param stream of a branch; undefined for what is in no branch */
  private kernels(name: string, device: number, kernels: readonly Kernel[], stream?: number): void {
    this.ops.push({
      kind: 'kernels',
      name,
      device,
      stream: stream ?? 0,
      forks: stream !== undefined,
      startsRun: this.fresh.delete(device),
      kernels,
    });
  }

  /** Adds to the stream that a group's branches need and layers by themselves do not; none where kernels are fused. */
  private adds(name: string, devices: readonly number[], count: number, stream?: number): void {
    const kernels = joinKernels(this.shape, this.pass, count);
    if (kernels.length === 0) return;
    for (const device of devices) this.kernels(name, device, kernels, stream);
  }

  /** Streams of a device come together, for nothing but that. */
  private join(devices: readonly number[]): void {
    for (const device of devices) {
      this.ops.push({
        kind: 'kernels',
        name: 'join',
        device,
        stream: 0,
        forks: false,
        startsRun: false,
        kernels: [],
      });
    }
  }

  private exchange(
    name: string,
    kind: Exchange['kind'],
    devices: readonly number[],
    bytes: number,
    pairs?: readonly (readonly [number, number])[],
  ): void {
    if (devices.length < 2) return;
    const id = (device: number) => this.devices[device]!;
    const exchange: Exchange = {
      kind,
      devices: devices.map(id),
      bytes,
      ...(pairs === undefined ? {} : { pairs: pairs.map(([from, to]) => [id(from), id(to)] as const) }),
    };
    this.ops.push({ kind: 'exchange', name: `${name}: ${kind}`, devices, exchange });
    for (const device of devices) this.fresh.add(device);
  }

  /** Gives the residual stream to devices that have not got it. */
  private bring(devices: readonly number[]): void {
    if (devices.every((device) => this.holders.has(device))) return;
    const root = this.home[0]!;
    const others = devices.filter((device) => !this.holders.has(device));
    this.exchange('stream', 'broadcast', [root, ...others], this.streamBytes);
  }

  /** Weights and caches that devices keep for layers split among them. */
  private keep(devices: readonly number[], layers: number): void {
    const bytes = this.layerBytes(devices.length, layers);
    for (const device of devices) this.memory[device]! += bytes;
  }

  /** Bytes of weights and cache on each of so many devices that so many layers are split among. */
  private layerBytes(ways: number, layers: number): number {
    const { shape, pass } = this;
    const weights = (layers * layerParameters(shape) * shape.weightBits) / 8;
    const { kvHeads } = layerPart(shape, ways, layers);
    return weights / ways + 2 * kvHeads * shape.headDim * (pass.context + pass.tokens) * shape.kvBytes;
  }

  /**
   * The team of each branch, so that the slowest is done soonest. Branches have equal shapes, teams need not. Memory
   * is kept to where it can be; where the branches fit nowhere, the prediction says so (`fits`) instead.
   */
  private assign(branches: number): number[] {
    const device = (place: number) => deviceOf(this.profile, this.devices[place]!);
    const seconds = this.teams.map((team) => {
      const part = layerPart(this.shape, team.length);
      const kernels = [...this.kernelsOf('attention', part), ...this.kernelsOf('ffn', part)];
      return Math.max(...team.map((place) => secondsAlone(kernels, device(place))));
    });
    // Counted in branches, which all need the same.
    const freeBytes = this.teams.map((team) =>
      Math.min(
        ...team.map((place) => {
          const free = device(place).memoryBytes - this.memory[place]! - this.reserved[place]!;
          return Math.max(0, Math.floor(free / this.layerBytes(team.length, 1)));
        }),
      ),
    );
    const rows = Array.from({ length: branches }, () => seconds);
    const room = freeBytes.reduce((sum, one) => sum + one, 0);
    const memory = room < branches ? {} : { bytes: rows.map(() => 1), freeBytes };
    return [...assignBranches({ seconds: rows, ...memory }).teams];
  }
}

/** Kernels one after the other on a device: started as the one before ends, or as fast as they can be started. */
function secondsAlone(kernels: readonly Kernel[], device: DeviceProfile): number {
  let launches = 0;
  let work = 0;
  for (const kernel of kernels) {
    const cost = kernelCost(kernel, device);
    launches += cost.launchSeconds;
    work += cost.fixedSeconds + cost.workSeconds;
  }
  return device.launch === 'serial' ? launches + work : Math.max(launches, work);
}

/** Which branch's attention output is read by which other branch on another team. */
function bypassPairs(teams: readonly number[], bypass: number | 'full'): [from: number, to: number][] {
  const pairs: [number, number][] = [];
  for (let to = 0; to < teams.length; to++) {
    for (let from = 0; from < teams.length; from++) {
      const reads = from !== to && (bypass === 'full' || (from < to && to - from <= bypass));
      if (reads && teams[from] !== teams[to]) pairs.push([from, to]);
    }
  }
  return pairs;
}
