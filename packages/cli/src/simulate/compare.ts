import {
  branchParallel,
  branchTeams,
  buildProgram,
  type ChromeTrace,
  chromeTrace,
  type LatencyParts,
  type MachineProfile,
  type ModelShape,
  onOneDevice,
  type Pass,
  type Placement,
  type Plan,
  type Program,
  programLatency,
  type RankedPlacement,
  rankPlacements,
  type Simulation,
  sequentialSteps,
  simulate,
  tensorParallel,
} from '@cqil/core';

/** One way to run the model. */
export interface SimulatedRow {
  readonly name: string;
  readonly placement: Placement;
  /** Whether the layers are grouped by the plan. */
  readonly planned: boolean;
  readonly prefill: SimulatedPass;
  readonly decode: SimulatedPass;
  /** Ids of devices whose memory the model does not fit into. */
  readonly tooSmall: readonly string[];
}

export interface SimulatedPass {
  readonly seconds: number;
  /** Against the first row; −0.26 is 26 % less. */
  readonly change: number;
  /** From the closed form, which knows no shared bus and one stream a device. */
  readonly parts: LatencyParts;
  /** What the simulation has beyond the closed form: waiting for a bus, less what streams hide. */
  readonly contention: number;
}

/** What `cqil simulate --json` prints. */
export interface Comparison {
  readonly model: ModelShape;
  readonly machine: { readonly name: string; readonly sources: readonly string[]; readonly devices: number };
  readonly plan: Plan;
  readonly steps: number;
  readonly promptTokens: number;
  readonly streams: number;
  readonly rows: readonly SimulatedRow[];
  /** Soonest for decoding among all placements that use one device or all, with the plan and without. */
  readonly best: { readonly planned: boolean; readonly placement: Placement; readonly seconds: number };
}

export interface CompareOptions {
  readonly shape: ModelShape;
  readonly plan: Plan;
  readonly profile: MachineProfile;
  readonly promptTokens: number;
  readonly streams: number;
}

/** A comparison, with the simulated decoding step of the plan on several devices for a picture. */
export interface Compared {
  readonly comparison: Comparison;
  readonly shown: { readonly name: string; readonly program: Program; readonly simulation: Simulation };
  readonly trace: ChromeTrace;
}

/** Runs the model unplanned and by the plan in all the usual ways on a machine. */
export function compare(options: CompareOptions): Compared {
  const { shape, plan, profile, promptTokens, streams } = options;
  const unplanned: Plan = { version: 1, layers: plan.layers, groups: [] };
  const passes: { prefill: Pass; decode: Pass } = {
    prefill: { tokens: promptTokens, context: 0 },
    decode: { tokens: 1, context: promptTokens },
  };
  const run = (planned: boolean, placement: Placement, pass: Pass) => {
    const program = buildProgram({ plan: planned ? plan : unplanned, shape, placement, profile, pass });
    const closed = programLatency(program);
    return { program, closed, simulation: simulate(program, { streams }) };
  };
  const runs = waysOf(plan, profile).map((way) => ({
    ...way,
    prefill: run(way.planned, way.placement, passes.prefill),
    decode: run(way.planned, way.placement, passes.decode),
  }));
  type Run = (typeof runs)[number]['decode'];
  const passOf = ({ closed, simulation }: Run, first: Run): SimulatedPass => ({
    seconds: simulation.seconds,
    change: simulation.seconds / first.simulation.seconds - 1,
    parts: closed.parts,
    contention: simulation.seconds - closed.seconds,
  });
  const [first] = runs;
  const rows = runs.map(({ name, placement, planned, prefill, decode }) => ({
    name,
    placement,
    planned,
    prefill: passOf(prefill, first!.prefill),
    decode: passOf(decode, first!.decode),
    tooSmall: prefill.closed.devices.filter(({ fits }) => !fits).map(({ id }) => id),
  }));
  const shown = runs.find(({ placement, planned }) => planned && placement.teams.length > 1) ?? first!;
  const { program, simulation } = shown.decode;
  return {
    comparison: {
      model: shape,
      machine: { name: profile.name, sources: profile.sources ?? [], devices: profile.devices.length },
      plan,
      steps: sequentialSteps(plan),
      promptTokens,
      streams,
      rows,
      best: bestOf(
        [true, false].flatMap((planned) =>
          rankPlacements({ plan: planned ? plan : unplanned, shape, profile }, passes.decode)
            .slice(0, 1)
            .map((ranked) => ({ planned, ...ranked })),
        ),
      ),
    },
    shown: { name: `${shown.name}: one token`, program, simulation },
    trace: chromeTrace(program, simulation),
  };
}

function bestOf(ranked: readonly ({ planned: boolean } & RankedPlacement)[]): Comparison['best'] {
  const misfit = (one: RankedPlacement) => (one.latency.devices.every(({ fits }) => fits) ? 0 : 1);
  const [best] = ranked.toSorted((a, b) => misfit(a) - misfit(b) || a.latency.seconds - b.latency.seconds);
  const { planned, placement, latency } = best!;
  return { planned, placement, seconds: latency.seconds };
}

interface Way {
  readonly name: string;
  readonly placement: Placement;
  readonly planned: boolean;
}

/** The rows: the model as it was first, so that everything is compared with it. */
function waysOf(plan: Plan, profile: MachineProfile): Way[] {
  const ids = profile.devices.map(({ id }) => id);
  const alone = onOneDevice(ids[0]!);
  const ways: Way[] = [{ name: 'unplanned, one device', placement: alone, planned: false }];
  if (plan.groups.length > 0) ways.push({ name: 'CQIL, one device', placement: alone, planned: true });
  if (ids.length < 2) return ways;
  const n = ids.length;
  const width = Math.max(1, ...plan.groups.map(({ layers }) => layers.length));
  const branches = Math.min(width, n);
  if (branches > 1) {
    ways.push({
      name: `CQIL, ${branches} devices`,
      placement: branchParallel(ids.slice(0, branches)),
      planned: true,
    });
  }
  ways.push({ name: `tensor parallel, ${n} devices`, placement: tensorParallel(ids), planned: false });
  if (branches > 1) {
    const teams = n % branches === 0 ? branches : n;
    ways.push({
      name: `CQIL + tensor parallel, ${n} devices`,
      placement: branchTeams(ids, teams),
      planned: true,
    });
  }
  return ways;
}
