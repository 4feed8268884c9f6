import { join } from 'node:path';
import { type Bypass, type GroupForm, type Plan, PlanError, UsageError } from '@cqil/core';
import type { Anatomy, Model, PredictedLatency } from '@cqil/planner';
import type { Argv } from 'yargs';
import { defineCommand } from '../command.js';
import { deviceList } from '../devices.js';
import { writeFileAtomic } from '../files.js';
import { openModel, readJson, refusedLayers } from '../model.js';
import { predictedLatency } from '../optimize/latency.js';
import { amount } from '../optimize/target.js';
import { fraction, oneText, wholeNumber, withDtype, withModel, withOut } from '../options.js';
import { describePlan } from '../plan.js';
import { table } from '../terminal/table.js';

interface Geometry {
  readonly groupSize?: number | undefined;
  readonly bypass?: Bypass | undefined;
  readonly start?: number | undefined;
  readonly end?: number | undefined;
}

export const plan = defineCommand({
  command: 'plan <model>',
  describe: 'choose which layers run at the same time',
  examples: [
    [
      'cqil plan models/smollm2 --group-size 2 --bypass 1 --start 12 --end 28 --out plan.json',
      'P, D, S and E',
    ],
    [
      'cqil plan models/smollm2 --from-config config.json --out plan.json',
      "from the authors' cqil_layers and d",
    ],
    [
      'cqil plan models/smollm2 --probe probe.json --threshold 0.95 --out plan.json',
      'from what a probe measured',
    ],
    [
      'cqil plan models/smollm2 --group-size 2 --start 12 --end 28 --form wide --out plan.json',
      'each pair as one wide layer',
    ],
    [
      'cqil plan models/smollm2 --front models/smollm2-22 --steps 24 --out plan.json',
      'from the front that cqil optimize measured',
    ],
  ],
  options: (yargs) => withOut(withPlanOptions(withDtype(withModel(yargs))), 'the plan to write, a JSON file'),
  async run(args, context) {
    const { model: path, dtype, out, fromConfig, probe, threshold, front, steps } = args;
    const { groupSize, bypass, start, end, targetSpeedup } = args;
    const core = await import('@cqil/core');
    const { source, model, anatomy } = await openModel(path, dtype);
    const layers = anatomy.layers.length;
    const given: Geometry = { groupSize, bypass, start, end };
    const way = chooseWay({
      ...{ fromConfig, probe, threshold, front, steps, targetSpeedup },
      ...{ profile: args.profile, devices: args.devices },
      geometry: given,
    });
    const { form } = args;
    const geometry: Geometry = form === 'wide' && bypass === undefined ? { ...given, bypass: 'full' } : given;

    let chosen: Plan;
    let measured = '';
    if (way === 'config')
      chosen = core.planFromAuthorsConfig(await readJson(fromConfig as string), { layers });
    else if (way === 'geometry')
      chosen = core.uniformPlan({ ...geometry, layers, groupSize: groupSize as number });
    else if (way === 'front' || way === 'speedup') {
      const points = await frontOf(front as string, layers);
      const found =
        way === 'front'
          ? { point: pointOfSteps(points, steps as number), said: '' }
          : await pointOfSpeedup(writable(points, args.form), targetSpeedup as number, layers, async () => {
              const { shapeOfModel } = await import('@cqil/planner');
              return predictedLatency(await shapeOfModel(source, { model, anatomy }), args, context);
            });
      chosen = found.point.plan;
      measured = `${tableOf(points)}\n${found.said}`;
    } else chosen = await planFromProbe(probe as string, threshold as number, geometry, anatomy);
    if (form !== 'branches') chosen = await mergedForm(chosen, form, model, anatomy);
    core.validatePlan(chosen, { layers, notGroupable: refusedLayers(anatomy) });
    await writeFileAtomic(out, core.stringifyPlan(chosen));
    const line = `wrote ${out}: ${describePlan(chosen, core.sequentialSteps(chosen))}`;
    return { document: chosen, text: `${measured}${line}` };
  },
});

function withPlanOptions<T>(yargs: Argv<T>) {
  return yargs
    .option('group-size', {
      type: 'string',
      describe: 'P: layers in a group',
      coerce: wholeNumber('group-size', 2),
    })
    .option('bypass', {
      type: 'string',
      describe: 'D: how many earlier attention outputs of the group an FFN reads, or full (default 0)',
      coerce: parseBypass,
    })
    .option('form', {
      type: 'string',
      choices: ['branches', 'wide', 'packed'] as const,
      default: 'branches' as const,
      describe:
        'how groups are written; wide: each as one layer with all heads and features, with bypass full; packed: what a group has in common as one, any bypass',
    })
    .option('start', {
      type: 'string',
      describe: 'S: first layer that may be grouped (default 0)',
      coerce: wholeNumber('start'),
    })
    .option('end', {
      type: 'string',
      describe: 'E: one past the last layer that may be grouped (default: all)',
      coerce: wholeNumber('end'),
    })
    .option('from-config', {
      type: 'string',
      describe: "a config.json with the authors' cqil_layers and d",
      coerce: oneText('from-config'),
    })
    .option('probe', { type: 'string', describe: 'what cqil probe wrote', coerce: oneText('probe') })
    .option('front', {
      type: 'string',
      describe: 'a folder that cqil optimize wrote: the best plans that it measured, by number of steps',
      coerce: oneText('front'),
    })
    .option('steps', {
      type: 'string',
      describe: 'with --front: which of them',
      coerce: wholeNumber('steps', 1),
    })
    .option('target-speedup', {
      type: 'string',
      describe:
        'or, with --front: the best of them that is so many times as fast, like 1.3x: as predicted by --profile, without one layers over steps',
      coerce: (value: unknown) => amount('target-speedup', value, /^(\d+(?:\.\d+)?)x?$/, 1, '1.3x'),
    })
    .option('profile', {
      type: 'string',
      describe: 'with --target-speedup: a file that cqil profile wrote, or "measure"',
      coerce: oneText('profile'),
    })
    .option('devices', {
      type: 'string',
      describe: 'with --profile: devices that branches are to run on, like cpu:0,cpu:1',
      coerce: deviceList('devices'),
    })
    .option('threshold', {
      type: 'string',
      describe: 'with --probe: least cosine similarity of layer inputs in a group',
      coerce: fraction('threshold', -1, 1),
    });
}

/**
 * The plan with every group as one wide layer, or packed.
 *
 * @throws UsageError `PLAN_OPTIONS` for another bypass than full with `wide`; PlanError `PLAN_WIDE_IMPOSSIBLE`,
 *   `PLAN_PACKED_IMPOSSIBLE`
 */
async function mergedForm(
  plan: Plan,
  form: 'wide' | 'packed',
  model: Model,
  anatomy: Anatomy,
): Promise<Plan> {
  const other = plan.groups.find(({ bypass }) => bypass !== 'full');
  if (form === 'wide' && other !== undefined) {
    throw new UsageError('PLAN_OPTIONS', 'Only groups with bypass full can be written as wide layers.', {
      expected: 'bypass full',
      found: `bypass ${other.bypass} of layers ${other.layers[0]} to ${other.layers.at(-1)}`,
      hint: 'leave --bypass or --form out, or use --form packed',
    });
  }
  const { mergeObstacles } = await import('@cqil/planner');
  const obstacles = await mergeObstacles(model, anatomy, form);
  for (const [index, { layers }] of plan.groups.entries()) {
    const reason = layers.slice(0, -1).flatMap((layer) => obstacles.get(layer) ?? [])[0];
    if (reason === undefined) continue;
    const run = `layers ${layers[0]} to ${layers.at(-1)}`;
    throw new PlanError(
      form === 'wide' ? 'PLAN_WIDE_IMPOSSIBLE' : 'PLAN_PACKED_IMPOSSIBLE',
      form === 'wide' ? `${run} cannot be written as one wide layer` : `nothing of ${run} can be made one`,
      {
        path: `groups[${index}].form`,
        expected:
          form === 'wide' ? 'layers that are alike but for their weights' : 'layers that begin or end alike',
        found: reason,
        hint: 'leave --form out',
      },
    );
  }
  return { ...plan, groups: plan.groups.map((group) => ({ ...group, form })) };
}

/** CQIL's rule: neighbouring layers whose inputs are alike enough may read one input. */
async function planFromProbe(
  file: string,
  threshold: number,
  { groupSize, bypass, start, end }: Geometry,
  { layers }: Anatomy,
): Promise<Plan> {
  const [{ choosePlan }, { readProbe }] = await Promise.all([import('@cqil/core'), import('@cqil/planner')]);
  const probe = await readProbe(file);
  if (probe.layers !== layers.length) {
    throw new UsageError('PROBE_OTHER_MODEL', `${file} is of another model.`, {
      expected: `${layers.length} layers, as the model has`,
      found: `${probe.layers} layers`,
      hint: 'probe this model',
    });
  }
  const { plan: chosen } = choosePlan({
    layers: probe.layers,
    similarity: probe.metrics.cosine,
    threshold,
    groupSizes: groupSize === undefined ? undefined : [groupSize],
    from: start,
    to: end,
    bypass,
  });
  return { ...chosen, provenance: { ...chosen.provenance, probe: probe.model.sha256 } };
}

interface FrontPoint {
  readonly steps: number;
  readonly plan: Plan;
  readonly kl: number;
  readonly excess: number;
}

/** The best plans that a search measured, most steps first. */
async function frontOf(folder: string, layers: number): Promise<readonly FrontPoint[]> {
  const { readReport, REPORT_FILE } = await import('@cqil/planner');
  const report = await readReport(join(folder, REPORT_FILE));
  if (report.plan.layers === layers) return report.front;
  throw new UsageError('FRONT_OTHER_MODEL', `${folder} is of another model.`, {
    expected: `${layers} layers, as the model has`,
    found: `${report.plan.layers} layers`,
    hint: 'Name the folder that cqil optimize made of this model.',
  });
}

/** Wide layers are those of bypass full alone. */
function writable(points: readonly FrontPoint[], form: GroupForm): readonly FrontPoint[] {
  if (form !== 'wide') return points;
  return points.filter(({ plan }) => plan.groups.every(({ bypass }) => bypass === 'full'));
}

function pointOfSteps(points: readonly FrontPoint[], steps: number): FrontPoint {
  const point = points.find((one) => one.steps === steps);
  if (point !== undefined) return point;
  throw new UsageError('FRONT_STEPS', `No plan of ${steps} steps was measured.`, {
    expected: `one of ${points.map((one) => one.steps).join(', ')}`,
    found: String(steps),
    hint: `Or search it: cqil optimize … --max-steps ${steps}`,
  });
}

/** The one that costs least of those that are fast enough, and by what that was told. */
async function pointOfSpeedup(
  points: readonly FrontPoint[],
  targetSpeedup: number,
  layers: number,
  predict: () => Promise<PredictedLatency | undefined>,
): Promise<{ point: FrontPoint; said: string }> {
  const latency = await predict();
  if (latency === undefined) {
    const { pointForTarget } = await import('@cqil/core');
    const point = pointForTarget(points, { targetSpeedup }, layers);
    return { point, said: 'the speed-up was read as layers over steps: no --profile was given\n' };
  }
  const speeds = points.map((point) => ({ point, speedup: 1 / latency.of(point.plan) }));
  const fast = speeds.filter(({ speedup }) => speedup >= targetSpeedup - 1e-9);
  if (fast.length > 0) {
    const { point, speedup } = fast.reduce((a, b) => (b.point.kl < a.point.kl ? b : a));
    return { point, said: `predicted: ${speedup.toFixed(2)} times as fast, by ${latency.described}\n` };
  }
  const fastest = Math.max(0, ...speeds.map(({ speedup }) => speedup));
  throw new UsageError('TARGET_UNREACHABLE', 'No plan of the front is predicted to be so fast.', {
    expected: `${targetSpeedup} times as fast, predicted by ${latency.described}`,
    found:
      points.length === 0
        ? 'no plan that can be written so'
        : `${fastest.toFixed(2)} times as fast at the most`,
    hint: 'Branches of a group gain nothing on one device: take --form wide, or name devices with --devices. Or search it: cqil optimize … --target-speedup',
  });
}

function tableOf(points: readonly FrontPoint[]): string {
  const rows = points.map((one) => [
    `${one.steps}`,
    one.kl.toFixed(4),
    `${(100 * one.excess).toFixed(1)} %`,
    describePlan(one.plan, one.steps),
  ]);
  return table([['steps', 'KL', 'excess', 'plan'], ...rows]);
}

export function parseBypass(value: unknown): Bypass | undefined {
  return value === 'full' ? 'full' : wholeNumber('bypass')(value);
}

interface Choice {
  readonly fromConfig: string | undefined;
  readonly probe: string | undefined;
  readonly threshold: number | undefined;
  readonly front: string | undefined;
  readonly steps: number | undefined;
  readonly targetSpeedup: number | undefined;
  readonly profile: string | undefined;
  readonly devices: readonly string[] | undefined;
  readonly geometry: Geometry;
}

type Way = 'config' | 'geometry' | 'probe' | 'front' | 'speedup';

/** Each way has options that it needs and options that it may have; what is given must fit one. */
const WAYS: Readonly<Record<Way, { needs: readonly string[]; may: readonly string[] }>> = {
  config: { needs: ['fromConfig'], may: [] },
  geometry: { needs: ['groupSize'], may: ['bypass', 'start', 'end'] },
  probe: { needs: ['probe', 'threshold'], may: ['groupSize', 'bypass', 'start', 'end'] },
  front: { needs: ['front', 'steps'], may: [] },
  speedup: { needs: ['front', 'targetSpeedup'], may: ['profile', 'devices'] },
};

function chooseWay({ geometry, ...options }: Choice): Way {
  const given = Object.entries({ ...options, ...geometry }).flatMap(([name, value]) =>
    value === undefined ? [] : [name],
  );
  for (const [way, { needs, may }] of Object.entries(WAYS)) {
    const fits = given.every((name) => needs.includes(name) || may.includes(name));
    if (fits && needs.every((name) => given.includes(name))) return way as Way;
  }
  throw new UsageError('PLAN_OPTIONS', 'These options make no plan.', {
    expected:
      '--group-size (with --bypass, --start, --end), or --from-config alone, or --probe with --threshold (and --group-size, --bypass, --start, --end), or --front with --steps or --target-speedup',
    found: 'another combination',
    hint: 'see cqil plan --help',
  });
}
