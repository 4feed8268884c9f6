import { describe, expect, it } from 'vitest';
import { seededRandom } from '../random.js';
import { Pacer } from './pacer.js';

interface World {
  /** Time of a pass over so many drafted tokens. */
  time(drafted: number): number;
  /** Chance that a drafted token is right, if those before it are. */
  readonly acceptance: number;
}

/** Decodes `tokens` tokens in a world; gives the lengths of the drafts and the time it took. */
const ONE = { id: 0, chance: 0.7 };

function play(pacer: Pacer, world: World, tokens: number, kind = ONE, seed = 1) {
  const random = seededRandom(seed);
  const lengths: number[] = [];
  let time = 0;
  let done = 0;
  while (done < tokens) {
    const drafted = pacer.length(kind);
    let accepted = 0;
    while (accepted < drafted && random() < world.acceptance) accepted++;
    const took = world.time(drafted);
    pacer.record({ kind, drafted, accepted, time: took });
    lengths.push(drafted);
    time += took;
    done += accepted + 1;
  }
  return { lengths, time, done };
}

const cheap = (drafted: number) => 10 + 0.5 * drafted;

describe('Pacer', () => {
  it('begins with a plain step, and drafts long where drafts are right and cheap', () => {
    const { lengths, time, done } = play(new Pacer(8), { time: cheap, acceptance: 0.95 }, 400);
    expect(lengths[0]).toBe(0);
    expect(lengths.slice(5).filter((length) => length >= 6).length).toBeGreaterThan(
      0.8 * (lengths.length - 5),
    );
    expect(time).toBeLessThan(0.3 * 10 * done);
  });

  it('drafts short where drafts are seldom right', () => {
    const { lengths } = play(new Pacer(8), { time: (n) => 10 + 3 * n, acceptance: 0.5 }, 400);
    const late = lengths.slice(20).filter((length) => length > 0);
    expect(late.length).toBeGreaterThan(50);
    expect(late.filter((length) => length <= 2).length).toBeGreaterThan(0.9 * late.length);
  });

  it.each([
    ['drafts are wrong', { time: cheap, acceptance: 0 }],
    ['a token more costs a step more', { time: (n: number) => 10 + 12 * n, acceptance: 0.9 }],
  ])('stops where %s, tries again ever more seldom, and loses little', (_name, world) => {
    const { lengths, time, done } = play(new Pacer(8), world, 2000);
    const trials = lengths.flatMap((length, i) => (length > 0 ? [i] : []));
    expect(time / done).toBeLessThan(10 * 1.05);
    expect(trials.at(-1)).toBeGreaterThan(1000);
    const gaps = trials.slice(1).map((at, i) => at - trials[i]!);
    expect(Math.max(...gaps)).toBeGreaterThan(200);
    expect(Math.max(...gaps)).toBeLessThan(300);
  });

  it('takes drafts up again when they have become right', () => {
    const pacer = new Pacer(8);
    play(pacer, { time: cheap, acceptance: 0 }, 300);
    const { lengths } = play(pacer, { time: cheap, acceptance: 0.95 }, 2000);
    expect(lengths.slice(-50).filter((length) => length > 4).length).toBeGreaterThan(40);
  });

  it('judges kinds of drafts one by one', () => {
    const pacer = new Pacer(8);
    for (let i = 0; i < 40; i++) {
      play(pacer, { time: cheap, acceptance: 0.95 }, 20, { id: 3, chance: 0.7 }, i);
      play(pacer, { time: cheap, acceptance: 0 }, 20, { id: 1, chance: 0.7 }, i);
    }
    expect(pacer.length({ id: 3, chance: 0.7 })).toBeGreaterThan(4);
    expect(pacer.length({ id: 1, chance: 0.7 })).toBe(0);
  });

  it('times plain steps again, since they become slower', () => {
    const { lengths } = play(new Pacer(4), { time: cheap, acceptance: 0.95 }, 2000);
    const plain = lengths.flatMap((length, i) => (length === 0 ? [i] : []));
    expect(plain.length).toBeGreaterThan(3);
    expect(Math.max(...plain.slice(1).map((at, i) => at - plain[i]!))).toBeLessThan(70);
  });

  it('is not thrown off by one slow pass', () => {
    const pacer = new Pacer(4);
    play(pacer, { time: cheap, acceptance: 0.95 }, 100);
    const length = pacer.length(ONE);
    pacer.record({ kind: ONE, drafted: length, accepted: length, time: 1000 });
    play(pacer, { time: cheap, acceptance: 0.95 }, 60);
    expect(pacer.length(ONE)).toBeGreaterThan(2);
  });

  it('learns acceptance alone from a pass without a time, and makes another', () => {
    const pacer = new Pacer(4);
    pacer.record({ kind: undefined, drafted: 0, accepted: 0, time: 10 });
    // Passes seem far too slow, until a trial is timed.
    for (let i = 0; i < 3; i++) pacer.record({ kind: ONE, drafted: 2, accepted: 2, time: 1e6 });
    const declined = () => {
      let count = 0;
      for (; pacer.length(ONE) === 0; count++)
        pacer.record({ kind: undefined, drafted: 0, accepted: 0, time: 10 });
      return count;
    };
    expect(declined()).toBe(16);
    pacer.record({ kind: ONE, drafted: 1, accepted: 1, time: undefined });
    expect(declined()).toBe(0);
    pacer.record({ kind: ONE, drafted: 1, accepted: 1, time: 11 });
    expect(declined()).toBe(32);
    for (let i = 0; i < 5; i++) pacer.record({ kind: ONE, drafted: 2, accepted: 0, time: undefined });
    expect([declined(), declined()]).toEqual([0, 64]);
  });
});
