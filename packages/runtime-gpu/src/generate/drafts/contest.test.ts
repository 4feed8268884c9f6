import { describe, expect, it } from 'vitest';
import { seededRandom } from '../random.js';
import { Contest } from './contest.js';

const KIND = { id: 0, chance: 0.7 };

interface World {
  /** Time of a pass with drafts, and of one without. */
  readonly drafts: number;
  readonly plain: number;
  /** Tokens that a pass with drafts brings beyond its own, on average. */
  readonly accepted: number;
}

/** Decodes so many passes; how many of them had drafts. */
function play(contest: Contest, world: World, passes: number, seed = 1): number {
  const random = seededRandom(seed);
  let drafted = 0;
  for (let i = 0; i < passes; i++) {
    const length = contest.length();
    expect(contest.resting).toBe(length === 0);
    const noise = 0.8 + 0.4 * random();
    if (length === 0) {
      contest.record({ kind: undefined, drafted: 0, accepted: 0, time: world.plain * noise });
      continue;
    }
    drafted++;
    // As many whole tokens as give the mean.
    const accepted = Math.floor(world.accepted + random());
    contest.record({ kind: KIND, drafted: 4, accepted, time: world.drafts * noise });
  }
  return drafted;
}

describe('Contest', () => {
  it('drafts on where that brings more tokens in the same time', () => {
    const drafted = play(new Contest(), { drafts: 12, plain: 10, accepted: 1 }, 3000);
    expect(drafted).toBeGreaterThan(2800);
  });

  it('rests where a busy drafter costs more than it brings, and is tried now and then', () => {
    const contest = new Contest();
    const world = { drafts: 15, plain: 10, accepted: 0.2 };
    const drafted = play(contest, world, 3000);
    expect(drafted).toBeLessThan(150);
    expect(drafted).toBeGreaterThan(30);
    // Ever more seldom: the next passes see fewer trials.
    expect(play(contest, world, 3000, 2)).toBeLessThan(60);
  });

  it('changes its mind when the world changes', () => {
    const contest = new Contest();
    play(contest, { drafts: 15, plain: 10, accepted: 0.2 }, 400);
    expect(contest.resting).toBe(true);
    expect(play(contest, { drafts: 12, plain: 10, accepted: 2 }, 3000)).toBeGreaterThan(2000);
    play(contest, { drafts: 15, plain: 10, accepted: 0 }, 1000);
    expect(play(contest, { drafts: 15, plain: 10, accepted: 0 }, 1000)).toBeLessThan(100);
  });

  it('heeds no pass of the other way, none that it was told to forget, and the limit of a draft', () => {
    const contest = new Contest(3);
    expect(contest.length()).toBe(3);
    for (let i = 0; i < 500; i++) {
      contest.record({ kind: undefined, drafted: 0, accepted: 0, time: 1 });
      contest.record({ kind: KIND, drafted: 0, accepted: 0, time: undefined });
    }
    expect(contest.length()).toBe(3);
    for (let i = 0; i < 14; i++) contest.record({ kind: KIND, drafted: 0, accepted: 0, time: 10 });
    expect(contest.length()).toBe(0);
  });
});
