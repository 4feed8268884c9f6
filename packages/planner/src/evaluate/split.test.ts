import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { deal, longestKnownPassage, pieces, splitText } from './split.js';

const words = fc.array(
  fc.oneof(
    fc.stringMatching(/^[a-z]{1,9}$/),
    fc.constantFrom('end.', 'why?', '\n\n', '\n', '漢字', '😀😀😀'),
  ),
  { minLength: 50, maxLength: 600 },
);

describe('deal', () => {
  it('gives everyone their share, as nearly as can be, at every place', () => {
    const shares = fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 200 }), shares, (count, weights) => {
        const owners = deal(count, weights);
        const sum = weights.reduce((a, b) => a + b);
        const dealt = weights.map(() => 0);
        for (const [place, owner] of owners.entries()) {
          dealt[owner]! += 1;
          for (const [i, weight] of weights.entries()) {
            expect(Math.abs(dealt[i]! - (weight * (place + 1)) / sum)).toBeLessThan(weights.length);
          }
        }
      }),
    );
  });

  it('gives ten places of a text to all three sets', () => {
    expect(deal(10, [7, 1, 2])).toEqual([0, 2, 0, 0, 1, 0, 0, 2, 0, 0]);
    expect(new Set(deal(10, [17, 3, 0]))).toEqual(new Set([0, 1]));
  });
});

describe('splitText', () => {
  it('gives no place to two sets, leaves a gap between them, cuts no character', () => {
    fc.assert(
      fc.property(words, fc.integer({ min: 10, max: 30 }), fc.constantFrom(' ', ''), (list, blocks, join) => {
        const text = list.join(join);
        const stretches = splitText(text, [7, 1, 2], blocks)
          .flat()
          .sort((a, b) => a.start - b.start);
        for (const [i, { start, end }] of stretches.entries()) {
          expect(start).toBeLessThan(end);
          expect(end).toBeLessThanOrEqual(text.length);
          // Throws where a character of two units is cut.
          expect(() => encodeURIComponent(text.slice(start, end))).not.toThrow();
          const before = stretches[i - 1];
          if (before !== undefined) expect(before.end).toBeLessThan(start);
        }
        const kept = stretches.reduce((sum, { start, end }) => sum + end - start, 0);
        expect(kept).toBeGreaterThan(text.length / 2);
      }),
    );
  });

  it('cuts at paragraphs and leaves one out', () => {
    const paragraphs = Array.from({ length: 200 }, (_, i) => `Paragraph ${i} says this. And more.`);
    const text = paragraphs.join('\n\n');
    const sets = splitText(text, [7, 1, 2], 10);
    const numbers = sets.map((parts) =>
      parts.map(({ start, end }) =>
        [...text.slice(start, end).matchAll(/Paragraph (\d+)/g)].map((m) => Number(m[1])),
      ),
    );
    expect(sets.flat().every(({ start }) => text.startsWith('Paragraph', start))).toBe(true);
    const runs = numbers.flat().sort((a, b) => a[0]! - b[0]!);
    for (const [i, run] of runs.entries()) {
      expect(run).toEqual(Array.from({ length: run.length }, (_, at) => run[0]! + at));
      if (i > 0) expect(run[0]! - runs[i - 1]!.at(-1)!).toBe(2);
    }
  });

  it('gives a whole text to one set', () => {
    expect(splitText('some text', [0, 0, 1], 1)).toEqual([[], [], [{ start: 0, end: 9 }]]);
  });
});

describe('pieces', () => {
  const sentence = (i: number) => `This is sentence number ${i} and it is long enough to count.`;
  const text = (from: number, to: number, join: string) =>
    Array.from({ length: to - from }, (_, i) => sentence(from + i)).join(join);

  it('finds a passage again wherever it stands, and however it is wrapped', () => {
    const known = new Set(pieces(text(0, 20, ' ')).map(({ hash }) => hash));
    const other = `${text(50, 53, ' ')}\n\n${text(8, 12, '\n').replaceAll(' it ', '\nit ')}\n\n${text(60, 62, '  ')} ${sentence(3)}`;
    expect(longestKnownPassage(pieces(other), known)).toBe(
      [8, 9, 10, 11].reduce((sum, i) => sum + sentence(i).length, 0),
    );
    expect(longestKnownPassage(pieces(text(90, 99, ' ')), known)).toBe(0);
  });

  it('makes nothing of what is in every text', () => {
    expect(pieces('Yes.\n\n}\n\nChapter 1\n\n')).toEqual([]);
  });
});
