import { type Bypass, type Plan, planSteps, UsageError, validatePlan } from '@cqil/core';
import type { Anatomy } from '../anatomy/index.js';
import { type LinearMaps, linearMaps } from '../linear/index.js';
import type { Model } from '../onnx/index.js';
import { ModelParts } from '../parts/index.js';
import { type Batch, GroupRefit } from './group-refit.js';
import { Products } from './products.js';
import { DEFAULT_ROLES } from './roles.js';
import { Student } from './student.js';
import type { GroupRecovery, RecoverOptions, RecoverResult } from './types.js';

/**
 * Repairs what a plan costs, in closed form: group by group in the order of the stream, each on the inputs that the
 * groups before it, already repaired, give it.
 *
 * A member of a group lacks what the members before it would have added to its input. A part of that can be predicted
 * linearly from what it does read, so its matrices are refitted by ridge regression to give, on the group's input, what
 * the original's layer gives on its own: `qkv` and `gate-up`, before the nonlinearity behind them; then the members'
 * `down` matrices, side by side, to leave the stream as the original does,
 *
 *     min_W  Σ_t w_t ‖ e_t − Wᵀ F_t ‖² + λ ‖W‖²,   e = y_original − y_group,  F = [F_1 … F_p]
 *
 * All are solved in float64, λ is chosen on development text, and what does not lessen the error there is not kept.
 * There is no new node and no new parameter: each solution is added to the matrix that is there.
 *
 * What has no such matrix (a norm stands behind it, experts) is left as it is, with the reason.
 *
 * @param model the original, ungrouped
 * @param anatomy of it
 * @throws UsageError `RECOVERY_TEXT_TOO_SHORT`; PlanError for a plan of another model; MetricError
 *   `ACTIVATION_NOT_FINITE`, `MATRIX_NOT_POSITIVE`; what `ModelParts` throws; the signal's reason
 */
export async function recover(
  model: Model,
  anatomy: Anatomy,
  plan: Plan,
  options: RecoverOptions,
): Promise<RecoverResult> {
  validatePlan(plan, { layers: anatomy.layers.length });
  const maps = linearMaps(model, anatomy);
  checkTokens(maps, plan, options);
  const parts = {
    ...(options.session === undefined ? {} : { session: options.session }),
    ...(options.signal === undefined ? {} : { signal: options.signal }),
    taps: (layer: { readonly index: number }) => tapsOf(maps, layer.index),
  };
  await using products = new Products(options.session?.threads);
  await using teacher = await ModelParts.open(model, anatomy, parts);
  await using opened = await ModelParts.open(model, anatomy, parts);
  const student = new Student(model, opened, options.session);
  const batches = await embedded(teacher, options);
  const bypass = new Map(plan.groups.map((group): [number, Bypass] => [group.layers[0]!, group.bypass]));
  const groups: GroupRecovery[] = [];
  // What lies behind the last group changes nothing that is fitted.
  const steps = planSteps(plan);
  const total = steps.findLastIndex((layers) => layers.length > 1) + 1;
  for (const [index, layers] of steps.slice(0, total).entries()) {
    options.signal?.throwIfAborted();
    options.onProgress?.({ phase: 'recovering', done: index, total, unit: 'steps' });
    const [first] = layers as [number];
    if (layers.length === 1) {
      for (const batch of batches) {
        const same = batch.student === batch.teacher;
        batch.teacher = await teacher.layer(first, batch.teacher);
        batch.student = same ? batch.teacher : await student.parts.layer(first, batch.student);
      }
      continue;
    }
    const refit = new GroupRefit(
      layers,
      bypass.get(first) ?? 0,
      maps,
      { teacher, student, products },
      options,
    );
    const known = options.known?.find((group) => group.layers.join() === layers.join());
    const group = await refit.run(batches, known, index === total - 1);
    groups.push(group);
    if (known === undefined) await options.onGroup?.(group);
  }
  options.onProgress?.({ phase: 'recovering', done: total, total, unit: 'steps' });
  return { model: student.model, plan, groups };
}

async function embedded(parts: ModelParts, options: RecoverOptions): Promise<Batch[]> {
  const { calibration, development, batchTokens = 4096 } = options;
  const batches: Batch[] = [];
  for (const windows of [calibration, development]) {
    const rows = Math.max(1, Math.floor(batchTokens / (windows[0]?.length ?? 1)));
    for (let at = 0; at < windows.length; at += rows) {
      const x = await parts.embed(windows.slice(at, at + rows));
      batches.push({ heldOut: windows === development, teacher: x, student: x });
    }
  }
  return batches;
}

/** The ends of a layer's maps. */
function tapsOf({ maps }: LinearMaps, layer: number): string[] {
  const own = maps.filter((map) => map.layer === layer);
  return [...new Set(own.flatMap((map) => [map.input, map.output]))];
}

/** Unknowns of the largest regression that a plan's recovery has, of each output. */
export function unknownsOf({ maps }: LinearMaps, plan: Plan, roles = DEFAULT_ROLES): number {
  const unknowns = plan.groups.flatMap(({ layers }) => {
    const own = maps.filter((map) => layers.includes(map.layer) && roles.includes(map.role));
    const down = own.filter(({ role }) => role === 'down').reduce((sum, map) => sum + map.inFeatures, 0);
    return [down, ...own.map((map) => map.inFeatures)];
  });
  return Math.max(0, ...unknowns);
}

/** Fewer tokens than unknowns leave a regression nothing to be judged by. */
function checkTokens(maps: LinearMaps, plan: Plan, options: RecoverOptions): void {
  const skip = options.skipFirst ?? 1;
  const needed = unknownsOf(maps, plan, options.roles);
  const count = (windows: readonly (readonly number[])[]) =>
    windows.reduce((sum, window) => sum + Math.max(0, window.length - skip), 0);
  const sets = [
    ['calibration', count(options.calibration), needed],
    ['development', count(options.development), Math.min(needed, 256)],
  ] as const;
  for (const [set, found, least] of sets) {
    if (found >= least) continue;
    throw new UsageError('RECOVERY_TEXT_TOO_SHORT', `The ${set} text is too short to recover with.`, {
      expected: `at least ${least} tokens, better ten times as many`,
      found: `${found}`,
      hint: 'Give more text, or leave recovery out.',
    });
  }
}
