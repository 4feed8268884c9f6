import { UsageError } from '../errors.js';
import { deviceOf, type MachineProfile } from './profile.js';

/**
 * Where a model's parts run. Branch k of a group runs on one of the teams; a team of several devices splits what it
 * computes by heads and features (tensor parallelism, Megatron-LM, arXiv 1909.08053).
 *
 * - one device: one team of one
 * - tensor parallelism: one team of n
 * - CQIL: n teams of one
 * - both: n teams of m
 */
export interface Placement {
  /** Ids of devices; no device in two teams. */
  readonly teams: readonly (readonly string[])[];
  /** Layers in no group, embedding and head: on the first team (default), or split among the devices of all teams. */
  readonly ungrouped?: 'first' | 'split';
  /** By group, the team of each branch. Without it each group's slowest branch is made as short as can be. */
  readonly assignment?: readonly (readonly number[])[];
}

/** Everything on one device. */
export function onOneDevice(id: string): Placement {
  return { teams: [[id]] };
}

/** Every layer split among the devices: two all-reduces a layer. */
export function tensorParallel(ids: readonly string[]): Placement {
  return { teams: [[...ids]] };
}

/** A group's branches each on a device of its own: one exchange a group. */
export function branchParallel(ids: readonly string[], ungrouped: 'first' | 'split' = 'first'): Placement {
  return { teams: ids.map((id) => [id]), ungrouped };
}

/**
 * The devices in so many teams of one size: branches on teams, each split inside its team.
 *
 * @throws UsageError `PLACEMENT_INVALID` where the devices do not divide evenly
 */
export function branchTeams(
  ids: readonly string[],
  teams: number,
  ungrouped: 'first' | 'split' = 'split',
): Placement {
  const size = ids.length / teams;
  if (!Number.isInteger(size) || size < 1) {
    throw invalid(`a number of devices that divides into ${teams} teams`, `${ids.length} devices`);
  }
  return {
    teams: Array.from({ length: teams }, (_, team) => ids.slice(team * size, (team + 1) * size)),
    ungrouped,
  };
}

/**
 * Checks a placement against a profile and a plan's groups.
 *
 * @param groups sizes of the plan's groups
 * @throws UsageError `PLACEMENT_INVALID`, `PROFILE_NO_DEVICE`
 */
export function checkPlacement(
  { teams, assignment }: Placement,
  profile: MachineProfile,
  groups: readonly number[],
): void {
  const all = teams.flat();
  if (teams.length === 0 || teams.some((team) => team.length === 0)) {
    throw invalid('at least one team, each with a device', `${teams.length} teams of ${all.length} devices`);
  }
  for (const id of all) deviceOf(profile, id);
  if (new Set(all).size < all.length) throw invalid('each device once', all.join(', '));
  if (assignment === undefined) return;
  const right =
    assignment.length === groups.length &&
    assignment.every(
      (branches, group) =>
        branches.length === groups[group] &&
        branches.every((team) => Number.isSafeInteger(team) && team >= 0 && team < teams.length),
    );
  if (!right) {
    throw invalid(
      `a team from 0 to ${teams.length - 1} for each branch of ${groups.length} groups`,
      JSON.stringify(assignment).slice(0, 80),
    );
  }
}

function invalid(expected: string, found: string): UsageError {
  return new UsageError('PLACEMENT_INVALID', 'The model cannot be placed like this.', { expected, found });
}
