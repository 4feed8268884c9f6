import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { assignBranches } from './assign.js';

/** All assignments in lexicographic order. */
function all(branches: number, teams: number): number[][] {
  let found: number[][] = [[]];
  for (let i = 0; i < branches; i++) {
    found = found.flatMap((one) => Array.from({ length: teams }, (_, team) => [...one, team]));
  }
  return found;
}

function loads(
  assignment: readonly number[],
  rows: readonly (readonly number[])[] | readonly number[],
  teams: number,
) {
  const sums = new Array<number>(teams).fill(0);
  for (const [branch, team] of assignment.entries()) {
    const row = rows[branch]!;
    sums[team]! += typeof row === 'number' ? row : row[team]!;
  }
  return sums;
}

const tables = fc
  .record({ branches: fc.integer({ min: 1, max: 6 }), teams: fc.integer({ min: 1, max: 4 }) })
  .chain(({ branches, teams }) =>
    fc.record({
      teams: fc.constant(teams),
      seconds: fc.array(
        fc.array(fc.oneof(fc.integer({ min: 0, max: 9 }), fc.double({ min: 0, max: 9, noNaN: true })), {
          minLength: teams,
          maxLength: teams,
        }),
        { minLength: branches, maxLength: branches },
      ),
      bytes: fc.array(fc.integer({ min: 0, max: 5 }), { minLength: branches, maxLength: branches }),
      freeBytes: fc.array(fc.integer({ min: 0, max: 14 }), { minLength: teams, maxLength: teams }),
    }),
  );

it('makes the slowest team as short as can be: against trying all', () => {
  fc.assert(
    fc.property(tables, ({ teams, seconds }) => {
      const found = assignBranches({ seconds });
      const best = Math.min(
        ...all(seconds.length, teams).map((one) => Math.max(...loads(one, seconds, teams))),
      );
      expect(found.exact).toBe(true);
      expect(found.seconds).toBeCloseTo(best, 9);
      expect(Math.max(...loads(found.teams, seconds, teams))).toBe(found.seconds);
    }),
  );
});

it('keeps to the memory, and says where nothing fits: against trying all', () => {
  fc.assert(
    fc.property(tables, ({ teams, ...options }) => {
      const { seconds, bytes, freeBytes } = options;
      const fitting = all(seconds.length, teams).filter((one) =>
        loads(one, bytes, teams).every((used, team) => used <= freeBytes[team]!),
      );
      if (fitting.length === 0) {
        expect(() => assignBranches(options)).toThrow(/do not fit/);
        return;
      }
      const found = assignBranches(options);
      const best = Math.min(...fitting.map((one) => Math.max(...loads(one, seconds, teams))));
      expect(found.seconds).toBeCloseTo(best, 9);
      expect(fitting).toContainEqual(found.teams);
    }),
  );
});

it('takes the first in order among equals', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 3 }), (branches, teams) => {
      const seconds = Array.from({ length: branches }, () => new Array<number>(teams).fill(1));
      const best = Math.ceil(branches / teams);
      const first = all(branches, teams).find((one) => Math.max(...loads(one, seconds, teams)) === best);
      expect(assignBranches({ seconds }).teams).toEqual(first);
    }),
  );
});

it('gives unequal devices unequal work', () => {
  // The second device is three times as fast.
  const seconds = Array.from({ length: 4 }, () => [3, 1]);
  expect(assignBranches({ seconds })).toEqual({ teams: [0, 1, 1, 1], seconds: 3, exact: true });
});

describe('where the exact search gives up', () => {
  it('is never worse than longest first, and at most twice the best on equal devices', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 8, maxLength: 40 }), (times) => {
        const seconds = times.map((time) => [time, time, time]);
        const found = assignBranches({ seconds, nodes: 10 });
        expect(found.exact).toBe(false);
        const load = [0, 0, 0];
        for (const time of times.toSorted((a, b) => b - a)) load[load.indexOf(Math.min(...load))]! += time;
        expect(found.seconds).toBeLessThanOrEqual(Math.max(...load));
        const bound = Math.max(Math.max(...times), times.reduce((sum, one) => sum + one, 0) / 3);
        expect(found.seconds).toBeLessThanOrEqual(2 * bound);
        expect(Math.max(...loads(found.teams, seconds, 3))).toBe(found.seconds);
      }),
    );
  });
});

it('refuses what is no table', () => {
  for (const seconds of [[[1, 2], [1]], [[-1]], [[]], [[Number.NaN]]]) {
    expect(() => assignBranches({ seconds })).toThrow(/no table/);
  }
  expect(() => assignBranches({ seconds: [[1]], bytes: [1, 2] })).toThrow(/no table/);
  expect(assignBranches({ seconds: [] })).toEqual({ teams: [], seconds: 0, exact: true });
});
