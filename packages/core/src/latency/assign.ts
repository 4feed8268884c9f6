import { UsageError } from '../errors.js';

/** A branch's seconds on every team, and what it needs of their memory. */
export interface AssignOptions {
  /** `[branches, teams]`; a row's entries may differ in any way (unrelated machines). */
  readonly seconds: readonly (readonly number[])[];
  /** Bytes of each branch (default 0). */
  readonly bytes?: readonly number[] | undefined;
  /** Free bytes of each team (default: no limit). */
  readonly freeBytes?: readonly number[] | undefined;
  /** Nodes that the exact search may visit before it gives way to local moves (default 200,000). */
  readonly nodes?: number | undefined;
}

export interface Assignment {
  /** The team of each branch. */
  readonly teams: readonly number[];
  /** Seconds of the slowest team, which the group waits for. */
  readonly seconds: number;
  /** True where no assignment has a shorter slowest team. */
  readonly exact: boolean;
}

/**
 * Which team computes which branches of a group, so that the slowest is done soonest: makespan on unrelated machines,
 * R||Cmax. Longest branch first to where it ends soonest (Graham 1969), then moves and swaps while they help, then
 * branch and bound from there. Among equals the earliest in lexicographic order, where the search is exact.
 *
 * @throws UsageError `PLACEMENT_MEMORY` where no assignment fits that the search can find; `PLACEMENT_INVALID`
 */
export function assignBranches(options: AssignOptions): Assignment {
  const problem = check(options);
  const first = improve(problem, longestFirst(problem));
  const { best, complete } = branchAndBound(problem, first, options.nodes ?? 200_000);
  if (best === undefined) {
    throw new UsageError('PLACEMENT_MEMORY', 'The branches do not fit into the memory of the devices.', {
      expected: `${problem.bytes.reduce((sum, one) => sum + one, 0)} bytes in parts`,
      found: `${problem.free.join(', ')} bytes free`,
      hint: 'take more devices, or weights of fewer bits',
    });
  }
  return { teams: best, seconds: makespan(problem, best), exact: complete };
}

interface Problem {
  readonly seconds: readonly (readonly number[])[];
  readonly bytes: readonly number[];
  readonly free: readonly number[];
  readonly teams: number;
}

function check({ seconds, bytes, freeBytes }: AssignOptions): Problem {
  const teams = seconds[0]?.length ?? 0;
  const problem = {
    seconds,
    bytes: bytes ?? seconds.map(() => 0),
    free: freeBytes ?? Array.from({ length: teams }, () => Number.POSITIVE_INFINITY),
    teams,
  };
  const right =
    seconds.every((row) => row.length === teams && row.every((one) => one >= 0)) &&
    (teams > 0 || seconds.length === 0) &&
    problem.bytes.length === seconds.length &&
    problem.free.length === teams;
  if (right) return problem;
  throw new UsageError('PLACEMENT_INVALID', 'These times are no table of branches and teams.', {
    expected: 'a row for each branch, an entry of 0 or more for each team',
    found: `${seconds.length} rows of ${[...new Set(seconds.map((row) => row.length))].join(', ')}`,
  });
}

/** Branches by their least time, longest first; undefined where one does not fit. */
function longestFirst(problem: Problem): number[] | undefined {
  const { seconds, bytes, free, teams } = problem;
  const order = orderOf(problem);
  const load = new Array<number>(teams).fill(0);
  const room = [...free];
  const found = new Array<number>(seconds.length);
  for (const branch of order) {
    let team = -1;
    for (let one = 0; one < teams; one++) {
      if (room[one]! < bytes[branch]!) continue;
      if (team < 0 || load[one]! + seconds[branch]![one]! < load[team]! + seconds[branch]![team]!) team = one;
    }
    if (team < 0) return undefined;
    found[branch] = team;
    load[team]! += seconds[branch]![team]!;
    room[team]! -= bytes[branch]!;
  }
  return found;
}

/** Moves of one branch and swaps of two, the first that shortens the slowest team, until none does. */
function improve(problem: Problem, start: number[] | undefined): number[] | undefined {
  if (start === undefined) return undefined;
  const best = [...start];
  let seconds = makespan(problem, best);
  const attempt = (change: () => void, undo: () => void): boolean => {
    change();
    const now = fits(problem, best) ? makespan(problem, best) : Number.POSITIVE_INFINITY;
    if (now < seconds) {
      seconds = now;
      return true;
    }
    undo();
    return false;
  };
  const swap = (a: number, b: number) => {
    [best[a], best[b]] = [best[b]!, best[a]!];
  };
  for (let improved = true; improved; ) {
    improved = false;
    for (let a = 0; a < best.length && !improved; a++) {
      const old = best[a]!;
      for (let team = 0; team < problem.teams && !improved; team++) {
        improved = attempt(
          () => {
            best[a] = team;
          },
          () => {
            best[a] = old;
          },
        );
      }
      for (let b = a + 1; b < best.length && !improved; b++) {
        improved = attempt(
          () => swap(a, b),
          () => swap(a, b),
        );
      }
    }
  }
  return best;
}

/** Depth first over branches in order, teams in order; cut where even the least times cannot beat what is known. */
function branchAndBound(
  problem: Problem,
  start: number[] | undefined,
  nodes: number,
): { best: number[] | undefined; complete: boolean } {
  const { seconds, bytes, free, teams } = problem;
  const least = seconds.map((row) => Math.min(...row));
  // What branches from here on take at least, spread over all teams.
  const rest = new Array<number>(seconds.length + 1).fill(0);
  for (let i = seconds.length - 1; i >= 0; i--) rest[i] = rest[i + 1]! + least[i]!;
  const load = new Array<number>(teams).fill(0);
  const room = [...free];
  const current = new Array<number>(seconds.length);
  let best = start;
  let bestSeconds = start === undefined ? Number.POSITIVE_INFINITY : makespan(problem, start);
  // The start may be as short as the first in order; that one is wanted, so equals are looked at until it is found.
  let fromStart = true;
  let left = nodes;

  const visit = (branch: number, worst: number, sum: number): void => {
    if (left <= 0) return;
    left--;
    const bound = Math.max(worst, (sum + rest[branch]!) / teams);
    if (fromStart ? bound > bestSeconds * (1 + 1e-12) : bound >= bestSeconds) return;
    if (branch === seconds.length) {
      best = [...current];
      bestSeconds = makespan(problem, best);
      fromStart = false;
      return;
    }
    for (let team = 0; team < teams; team++) {
      if (room[team]! < bytes[branch]!) continue;
      const own = seconds[branch]![team]!;
      const before = load[team]!;
      load[team] = before + own;
      room[team]! -= bytes[branch]!;
      current[branch] = team;
      visit(branch + 1, Math.max(worst, load[team]!), sum + own);
      load[team] = before;
      room[team]! += bytes[branch]!;
    }
  };
  visit(0, 0, 0);
  return { best, complete: left > 0 };
}

function orderOf({ seconds }: Problem): number[] {
  const least = seconds.map((row) => Math.min(...row));
  return seconds.map((_, i) => i).sort((a, b) => least[b]! - least[a]! || a - b);
}

function makespan({ seconds, teams }: Problem, assignment: readonly number[]): number {
  const load = new Array<number>(teams).fill(0);
  for (const [branch, team] of assignment.entries()) load[team]! += seconds[branch]![team]!;
  return Math.max(0, ...load);
}

function fits({ bytes, free }: Problem, assignment: readonly number[]): boolean {
  const used = free.map(() => 0);
  for (const [branch, team] of assignment.entries()) used[team]! += bytes[branch]!;
  return used.every((one, team) => one <= free[team]!);
}
