import { effectiveBypass } from '../plan/steps.js';
import type { GroupForm, Plan, PlanGroup } from '../plan/types.js';
import type { Pass } from './kernels.js';
import { onOneDevice, type Placement } from './placement.js';
import { predictPass } from './predict.js';
import type { MachineProfile } from './profile.js';
import type { ModelShape } from './shape.js';

/** Plans' latencies over that of the unplanned model. */
export interface RelativeLatency {
  /** Of a plan; below 1 is faster. */
  of(plan: Plan): number;
  /** What a group by itself changes it by, as a share of the unplanned latency. */
  change(group: Pick<PlanGroup, 'layers' | 'bypass'>): number;
}

export interface RelativeLatencyOptions {
  readonly shape: ModelShape;
  readonly profile: MachineProfile;
  /** A token behind 128 when absent. */
  readonly pass?: Pass;
  /** How groups are written; `branches` when absent. */
  readonly form?: GroupForm;
  /**
   * Devices that branch k of each group runs on, counted round. What is in no group, and the unplanned model, run on the
   * profile's first device.
   */
  readonly branches?: readonly string[];
}

/**
 * Predicts plans beside the unplanned model on the same machine, for searches that are to reach a speed.
 *
 * On one device the changes of a plan's groups add up to what the plan changes. On several, groups next to each other
 * need the stream sent out once only, so that a plan is as fast as their sum or faster.
 *
 * @throws UsageError `PROFILE_NO_DEVICE`, `PROFILE_NO_LINK`, `PROFILE_NO_RATE`, `PLACEMENT_INVALID`
 */
export function relativeLatency(options: RelativeLatencyOptions): RelativeLatency {
  const { shape, profile, form = 'branches', branches = [] } = options;
  const pass = options.pass ?? { tokens: 1, context: 128 };
  const home = profile.devices[0]!.id;
  const teams = [home, ...branches.filter((id) => id !== home)];
  const placementOf = ({ groups }: Plan): Placement =>
    branches.length === 0
      ? onOneDevice(home)
      : {
          teams: teams.map((id) => [id]),
          assignment: groups.map(({ layers }) =>
            layers.map((_, k) => teams.indexOf(branches[k % branches.length]!)),
          ),
        };
  const secondsOf = (plan: Plan) => {
    const formed = { ...plan, groups: plan.groups.map((group) => ({ ...group, form: group.form ?? form })) };
    return predictPass({ plan: formed, shape, profile, placement: placementOf(formed) }, pass).seconds;
  };
  const unplanned = predictPass(
    {
      plan: { version: 1, layers: shape.layers, groups: [] },
      shape,
      profile,
      placement: onOneDevice(home),
    },
    pass,
  ).seconds;
  const known = new Map<string, number>();
  const of = (plan: Plan) => secondsOf(plan) / unplanned;
  return {
    of,
    change({ layers, bypass }) {
      // Layers have one shape, so where the group is makes no difference.
      const key = `${layers.length} ${effectiveBypass({ layers, bypass })}`;
      const before = known.get(key);
      if (before !== undefined) return before;
      const change =
        of({ version: 1, layers: shape.layers, groups: [{ layers: [...layers], bypass, form }] }) - 1;
      known.set(key, change);
      return change;
    },
  };
}
