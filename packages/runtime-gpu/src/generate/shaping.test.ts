import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { SamplingOptions } from './sampling.js';
import { shapeLogits } from './shaping.js';
import { TokenHistory } from './token-history.js';

/** Penalties by their definitions, token by token. */
function reference(
  logits: Float32Array,
  options: SamplingOptions,
  prompt: readonly number[],
  answer: readonly number[],
  allowed: ReadonlySet<number> | undefined,
): number[] {
  const { repetitionPenalty = 1, presencePenalty = 0, frequencyPenalty = 0, logitBias } = options;
  return [...logits].map((logit, id) => {
    if (allowed !== undefined && !allowed.has(id)) return Number.NEGATIVE_INFINITY;
    const bias = logitBias?.get(id) ?? 0;
    if (bias === -100) return Number.NEGATIVE_INFINITY;
    let value = logit;
    if (prompt.includes(id) || answer.includes(id)) {
      value = value < 0 ? value * repetitionPenalty : value / repetitionPenalty;
    }
    const count = answer.filter((other) => other === id).length;
    return value - frequencyPenalty * count - (count > 0 ? presencePenalty : 0) + bias;
  });
}

const VOCABULARY = 70;
const ids = fc.array(fc.nat(VOCABULARY - 1), { maxLength: 12 });

describe('shapeLogits', () => {
  it('is what the definitions say', () => {
    const penalties = fc.record(
      {
        repetitionPenalty: fc.double({ min: 0.5, max: 2, noNaN: true }),
        presencePenalty: fc.double({ min: -2, max: 2, noNaN: true }),
        frequencyPenalty: fc.double({ min: -2, max: 2, noNaN: true }),
        logitBias: fc
          .array(fc.tuple(fc.nat(VOCABULARY + 5), fc.constantFrom(-100, -3, 0.5, 100)))
          .map((entries) => new Map(entries)),
      },
      { requiredKeys: [] },
    );
    const row = fc.array(fc.double({ min: -9, max: 9, noNaN: true }), {
      minLength: VOCABULARY,
      maxLength: VOCABULARY,
    });
    fc.assert(
      fc.property(row, penalties, ids, ids, fc.option(ids), (values, options, prompt, answer, only) => {
        const logits = Float32Array.from(values);
        const before = logits.slice();
        const history = new TokenHistory(prompt);
        for (const id of answer) history.push(id);
        // A draft that is taken back leaves nothing.
        for (const id of [3, 3, 5]) history.push(id);
        for (const id of [5, 3, 3]) history.remove(id);
        let mask: Uint32Array | undefined;
        if (only !== null) {
          mask = new Uint32Array(Math.ceil(VOCABULARY / 32));
          for (const id of only) mask[id >> 5]! |= 1 << (id & 31);
        }
        const shaped = shapeLogits(logits, options, history, mask);
        const expected = reference(
          logits,
          options,
          prompt,
          answer,
          only === null ? undefined : new Set(only),
        );
        expect(shaped).toHaveLength(VOCABULARY);
        shaped.forEach((value, id) => {
          if (expected[id] === Number.NEGATIVE_INFINITY) expect(value).toBe(Number.NEGATIVE_INFINITY);
          else expect(value).toBeCloseTo(expected[id]!, 3);
        });
        expect(logits).toEqual(before);
      }),
    );
  });

  it('forbids what is past the end of a mask', () => {
    const shaped = shapeLogits(new Float32Array(40), {}, new TokenHistory([]), Uint32Array.of(0xffffffff));
    expect([...shaped].map((value) => value === 0)).toEqual(Array.from({ length: 40 }, (_, id) => id < 32));
  });

  it('gives the logits themselves where nothing changes', () => {
    const logits = Float32Array.of(1, 2);
    expect(
      shapeLogits(logits, { temperature: 1, topP: 0.5, logitBias: new Map() }, new TokenHistory([0])),
    ).toBe(logits);
  });
});
