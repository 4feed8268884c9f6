import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { TextSet } from '../evaluate/index.js';
import {
  batchWindows,
  type CostText,
  checkTexts,
  costTexts,
  countWindows,
  hashWindows,
  kindsOf,
} from './windows.js';

const text = (kind: string, windows: readonly (readonly number[])[]): CostText => ({
  kind,
  windows,
});
const filled = (value: number, length: number) => Array.from({ length }, () => value);

describe('batchWindows', () => {
  it('takes the texts in turn and packs windows of one length', () => {
    const texts = [
      text('prose', [filled(1, 4), filled(2, 4), filled(3, 4)]),
      text('code', [filled(4, 4), filled(5, 3)]),
    ];
    const { batches } = batchWindows(texts, { positions: 8, together: true });
    expect(batches).toEqual([
      { ids: [filled(1, 4), filled(4, 4)], kinds: [0, 1] },
      { ids: [filled(2, 4)], kinds: [0] },
      { ids: [filled(5, 3)], kinds: [1] },
      { ids: [filled(3, 4)], kinds: [0] },
    ]);
    expect(kindsOf([...texts, text('prose', [])])).toEqual(['prose', 'code']);
  });

  it('runs windows one by one where they must not be together, and those longer than a batch', () => {
    const texts = [text('a', [filled(1, 4), filled(2, 4)])];
    expect(batchWindows(texts, { positions: 100, together: false }).batches).toHaveLength(2);
    expect(batchWindows(texts, { positions: 3, together: true }).batches).toHaveLength(2);
  });

  it('loses no window, ends a batch at each cut, and keeps to the size', () => {
    const windows = fc.array(fc.array(fc.nat(9), { minLength: 2, maxLength: 6 }), { maxLength: 8 });
    fc.assert(
      fc.property(
        fc.array(windows, { minLength: 1, maxLength: 3 }),
        fc.integer({ min: 1, max: 20 }),
        fc.nat(20),
        (all, positions, cut) => {
          const texts = all.map((of, i) => text(`kind ${i}`, of));
          const total = countWindows(texts);
          const cuts = cut > 0 && cut < total ? [cut, total] : [total];
          const { batches, ends } = batchWindows(texts, { positions, together: true }, cuts);
          expect(
            batches
              .flatMap(({ ids }) => ids)
              .map((ids) => ids.join())
              .sort(),
          ).toEqual(
            all
              .flat()
              .map((ids) => ids.join())
              .sort(),
          );
          for (const { ids, kinds } of batches) {
            expect(kinds).toHaveLength(ids.length);
            expect(new Set(ids.map(({ length }) => length)).size).toBe(1);
            expect(ids.length === 1 || ids.flat().length <= positions).toBe(true);
          }
          expect(ends.map((end) => batches.slice(0, end).flatMap(({ ids }) => ids).length)).toEqual(cuts);
        },
      ),
    );
  });
});

describe('texts', () => {
  it('are refused when there is nothing to predict', () => {
    expect(() => checkTexts([text('a', [])], 1)).toThrow(expect.objectContaining({ code: 'COSTS_TEXT' }));
    expect(() => checkTexts([text('a', [[1, 2]])], 1)).toThrow(/a window of 2/);
    checkTexts([text('a', [[1, 2, 3]])], 1);
  });

  it('of a set come with their sources', () => {
    const [prose, code] = [[filled(1, 4)], [filled(2, 4), filled(3, 4)]];
    const source = (kind: string, spec: string) => ({ kind, spec, sha256: `hash of ${spec}`, tokens: 4 });
    const set: TextSet = {
      name: 'development',
      window: 4,
      tokens: 12,
      sha256: 'of all',
      texts: [source('prose', 'a.txt'), source('code', 'b.ts'), source('code', 'c.ts')],
      kinds: [
        { kind: 'prose', windows: prose },
        { kind: 'code', windows: code },
      ],
    };
    expect(costTexts(set)).toEqual([
      { kind: 'prose', windows: prose, sources: [{ spec: 'a.txt', sha256: 'hash of a.txt' }] },
      {
        kind: 'code',
        windows: code,
        sources: [
          { spec: 'b.ts', sha256: 'hash of b.ts' },
          { spec: 'c.ts', sha256: 'hash of c.ts' },
        ],
      },
    ]);
  });

  it('have a hash that tells how they are cut', () => {
    const hashes = [
      [[1, 2, 3, 4]],
      [
        [1, 2],
        [3, 4],
      ],
      [[12, 3, 4]],
      [[1, 2, 3, 5]],
    ].map((windows) => hashWindows(text('a', windows)));
    expect(new Set(hashes).size).toBe(4);
  });
});
