import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PromptLookup } from './prompt-lookup.js';

async function drafted(context: number[], limit: number, longest = 3) {
  const lookup = new PromptLookup(longest);
  const kind = lookup.look(context);
  return kind === undefined
    ? undefined
    : { kind: kind.id, ids: (await lookup.draft({ context, limit, room: limit, vocabulary: 100 })).ids };
}

describe('PromptLookup', () => {
  it('drafts what followed the longest match, the latest of equals', async () => {
    expect(await drafted([1, 2, 3, 40, 9, 2, 3, 50, 1, 2, 3], 2)).toEqual({ kind: 3, ids: [40, 9] });
    expect(await drafted([2, 3, 40, 9, 2, 3, 50, 7, 2, 3], 2)).toEqual({ kind: 2, ids: [50, 7] });
    expect(await drafted([3, 40, 3, 50, 3], 1)).toEqual({ kind: 1, ids: [50] });
  });

  it('looks no further back than it is told', async () => {
    expect(await drafted([1, 2, 3, 40, 2, 3, 50, 1, 2, 3], 1, 2)).toEqual({ kind: 2, ids: [50] });
  });

  it('goes on with a period', async () => {
    expect(await drafted([8, 1, 2, 1, 2], 5)).toEqual({ kind: 2, ids: [1, 2, 1, 2, 1] });
    expect(await drafted([5, 5], 3)).toEqual({ kind: 1, ids: [5, 5, 5] });
  });

  it('has nothing for a new token', async () => {
    expect(await drafted([1, 2, 3], 4)).toBeUndefined();
    expect(await drafted([1], 4)).toBeUndefined();
  });

  it('is what a search through all matches gives', async () => {
    const contexts = fc.array(fc.nat(3), { minLength: 1, maxLength: 30 });
    await fc.assert(
      fc.asyncProperty(contexts, fc.integer({ min: 1, max: 5 }), async (context, longest) => {
        let expected: { kind: number; ids: number[] } | undefined;
        for (let n = longest; n >= 1 && expected === undefined; n--) {
          const tail = context.slice(-n).join();
          for (let from = context.length - 1; from >= n && expected === undefined; from--) {
            if (context.length >= n && context.slice(from - n, from).join() === tail) {
              const text = [...context];
              for (let i = 0; i < 4; i++) text.push(text[from + i]!);
              expected = { kind: n, ids: text.slice(context.length) };
            }
          }
        }
        expect(await drafted(context, 4, longest)).toEqual(expected);
      }),
    );
  });
});
