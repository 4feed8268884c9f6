import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Tokens } from './tokens.js';

const ids = fc.array(fc.integer({ min: 0, max: 2 }), { maxLength: 12 });

describe('Tokens', () => {
  it('are those that were appended, whoever went on from the same start', () => {
    fc.assert(
      fc.property(ids, ids, ids, ids, (start, first, second, third) => {
        const root = Tokens.of(start, undefined);
        const one = root.append(first, undefined);
        const two = root.append(second, undefined);
        const three = one.append(third, undefined);
        const all = [
          [root, start],
          [one, [...start, ...first]],
          [two, [...start, ...second]],
          [three, [...start, ...first, ...third]],
        ] as const;
        for (const [tokens, expected] of all) {
          expect(tokens.length).toBe(expected.length);
          expect(tokens.shared([...expected, 9], undefined)).toBe(expected.length);
        }
      }),
    );
  });

  it('share with a prompt what both begin with', () => {
    fc.assert(
      fc.property(ids, ids, fc.nat(12), (a, b, cut) => {
        let expected = 0;
        while (expected < Math.min(a.length, b.length) && a[expected] === b[expected]) expected++;
        const tokens = Tokens.of(a, undefined);
        expect(tokens.shared(b, undefined)).toBe(expected);
        expect(tokens.isPrefixOf(Tokens.of(b, undefined))).toBe(expected === a.length);
        expect(tokens.first(cut).shared(a, undefined)).toBe(Math.min(cut, a.length));
      }),
    );
  });

  it('are the same at the same positions only', () => {
    const tokens = Tokens.of([5, 6, 7], [0, 1, 2]).append([8], [3]);
    expect(tokens.shared([5, 6, 7, 8], [0, 1, 2, 3])).toBe(4);
    expect(tokens.shared([5, 6, 7, 8], [0, 1, 3, 4])).toBe(2);
    expect(tokens.shared([5, 6, 7, 8], undefined)).toBe(0);
    expect(Tokens.of([5], undefined).shared([5], [0])).toBe(0);
  });
});
