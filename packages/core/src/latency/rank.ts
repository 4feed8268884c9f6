import type { Plan } from '../plan/types.js';
import type { Pass } from './kernels.js';
import { branchTeams, onOneDevice, type Placement } from './placement.js';
import { type PassLatency, predictPass } from './predict.js';
import type { MachineProfile } from './profile.js';
import type { ModelShape } from './shape.js';

export interface RankOptions {
  readonly plan: Plan;
  readonly shape: ModelShape;
  readonly profile: MachineProfile;
  /** Ids of the devices that may be used (default: all of the profile). */
  readonly devices?: readonly string[] | undefined;
}

/** A placement with what it comes to. */
export interface RankedPlacement {
  readonly placement: Placement;
  readonly latency: PassLatency;
}

/**
 * All placements of a plan that use one device or all, soonest done first: each device alone, tensor parallelism, and
 * branches on teams of every size, with what is in no group on the first team or split among all. Each device is the
 * first once where teams are single devices. What does not fit into memory comes last.
 */
export function rankPlacements({ devices, ...options }: RankOptions, pass: Pass): RankedPlacement[] {
  const ids = devices ?? options.profile.devices.map(({ id }) => id);
  const ranked = placementsOf(ids).map((placement) => ({
    placement,
    latency: predictPass({ ...options, placement }, pass),
  }));
  const misfit = ({ latency }: RankedPlacement) => (latency.devices.every(({ fits }) => fits) ? 0 : 1);
  return ranked.toSorted((a, b) => misfit(a) - misfit(b) || a.latency.seconds - b.latency.seconds);
}

function placementsOf(ids: readonly string[]): Placement[] {
  const found: Placement[] = ids.map(onOneDevice);
  if (ids.length < 2) return found;
  for (let teams = 1; teams <= ids.length; teams++) {
    if (ids.length % teams !== 0) continue;
    const orders = teams === ids.length ? ids.map((id) => [id, ...ids.filter((one) => one !== id)]) : [ids];
    for (const order of orders) found.push(branchTeams(order, teams, 'first'));
    if (teams > 1) found.push(branchTeams(ids, teams, 'split'));
  }
  return found;
}
