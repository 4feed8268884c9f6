import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { channelCodes, channelValues, largestCode, roundHalfEven, toCodes } from './codes.js';
import { MagnitudeHistogram } from './histogram.js';
import { stepOf } from './steps.js';
import { chooseStretches, stretchAt } from './stretches.js';

const bits = fc.constantFrom(8 as const, 16 as const);
const values = fc
  .array(fc.float({ min: -1000, max: 1000, noNaN: true }), { minLength: 1, maxLength: 60 })
  .map((list) => Float32Array.from(list));

function seen(...tokens: readonly (readonly [Float32Array, number])[]): MagnitudeHistogram {
  const histogram = new MagnitudeHistogram();
  for (const [token, share] of tokens) histogram.add(token, Float32Array.of(share));
  return histogram;
}

describe('codes', () => {
  it('rounds halves to the even neighbour', () => {
    expect([0.5, 1.5, 2.5, -0.5, -1.5, 2.4, 2.6, -2.6].map(roundHalfEven)).toEqual([
      0, 2, 2, 0, -2, 2, 3, -3,
    ]);
  });

  it('is at most half a step off, and saturates', () => {
    fc.assert(
      fc.property(values, fc.float({ min: 0.125, max: 8, noNaN: true }), bits, (list, step, width) => {
        const codes = toCodes(list, step, width);
        const least = -largestCode(width) - 1;
        codes.forEach((code, i) => {
          const held = Math.max(least * step, Math.min(largestCode(width) * step, list[i]!));
          expect(Math.abs(code * step - held)).toBeLessThanOrEqual(step * 0.5001);
        });
      }),
    );
  });

  it('gives products that are as far off as the steps imply, and no farther', () => {
    fc.assert(
      fc.property(values, values, bits, (x, list, width) => {
        const weight = Float32Array.from(x, (_, i) => list[i % list.length]!);
        const step = stepOf(seen([x, 1]), width, 'max').step;
        const { codes, scales } = channelCodes(weight, 1);
        const taken = toCodes(x, step, width);
        let [sum, truth, bound] = [0, 0, 0];
        for (let k = 0; k < x.length; k++) {
          sum += taken[k]! * codes[k]!;
          truth += x[k]! * weight[k]!;
          bound += (step / 2) * Math.abs(weight[k]!) + (scales[0]! / 2) * Math.abs(taken[k]! * step);
        }
        expect(Math.abs(sum * step * scales[0]! - truth)).toBeLessThanOrEqual(bound * 1.001 + 1e-30);
      }),
    );
  });

  it('gives each output of a matrix the range of its largest weight', () => {
    fc.assert(
      fc.property(values, fc.integer({ min: 1, max: 4 }), (list, outputs) => {
        const weight = new Float32Array(list.length * outputs);
        for (let i = 0; i < weight.length; i++) weight[i] = list[(i * 7) % list.length]! * (i % outputs);
        const found = channelCodes(weight, outputs);
        const back = channelValues(found);
        for (let i = 0; i < weight.length; i++) {
          const scale = found.scales[i % outputs]!;
          expect(Math.abs(found.codes[i]!)).toBeLessThanOrEqual(127);
          expect(Math.abs(back[i]! - weight[i]!)).toBeLessThanOrEqual(scale * 0.5001);
        }
        // The first output is all zeros: its scale still divides.
        expect(found.scales[0]).toBe(1);
      }),
    );
  });
});

describe('MagnitudeHistogram', () => {
  it('tells what a step does, as rounding the values one by one does', () => {
    fc.assert(
      fc.property(values, values, fc.integer({ min: -6, max: 6 }), bits, (a, b, octave, width) => {
        const step = 2 ** octave;
        const half = 0.5;
        const histogram = seen([a, 1], [b, half]);
        const off = (list: Float32Array) =>
          Array.from(toCodes(list, step, width)).reduce(
            (sum, code, i) => sum + (code * step - list[i]!) ** 2,
            0,
          );
        const square = (list: Float32Array) => list.reduce((sum, value) => sum + value * value, 0);
        const count = a.length + half * b.length;
        expect(histogram.power).toBeCloseTo((square(a) + half * square(b)) / count, 5);
        const truth = (off(a) + half * off(b)) / count;
        const bound = (step * step) / 4 + 0.04 * histogram.power;
        expect(Math.abs(histogram.error(step, width) - truth)).toBeLessThanOrEqual(bound);
      }),
    );
  });

  it('is within a tenth of the error of many values', () => {
    let state = 9;
    const list = Float32Array.from({ length: 20000 }, () => {
      state = (Math.imul(state, 1664525) + 1013904223) | 0;
      return (state / 2 ** 31) ** 3;
    });
    const histogram = seen([list, 1]);
    for (const [step, width] of [
      [1 / 127, 8],
      [1 / 300, 8],
      [1 / 1000, 8],
      [1 / 30, 16],
    ] as const) {
      const codes = Array.from(toCodes(list, step, width));
      const truth = codes.reduce((sum, code, i) => sum + (code * step - list[i]!) ** 2, 0) / list.length;
      expect(histogram.error(step, width) / truth).toBeGreaterThan(0.9);
      expect(histogram.error(step, width) / truth).toBeLessThan(1.1);
    }
  });
});

describe('stepOf', () => {
  it('never cuts a token of another scale, whatever that costs the others', () => {
    const usual = Float32Array.from({ length: 64 }, (_, i) => Math.sin(i));
    const massive = Float32Array.from({ length: 64 }, (_, i) => (i === 3 ? 500 : 0));
    expect(stepOf(seen([usual, 1], [massive, 0.001]), 8).step).toBeCloseTo(500 / 127, 5);
    expect(stepOf(seen([usual, 1]), 8).step).toBeLessThanOrEqual(1 / 127);
  });

  it('leaves room for twice as much in 16 bits by the rule `max`', () => {
    const usual = seen([Float32Array.of(3, -8, 1), 1]);
    expect(stepOf(usual, 16, 'max').step).toBeCloseTo(16 / 32767, 8);
    expect(stepOf(usual, 8, 'max').step).toBeCloseTo(8 / 127, 6);
  });

  it('errs no more than the range of all that was seen does', () => {
    fc.assert(
      fc.property(values, bits, (list, width) => {
        const histogram = seen([list, 1]);
        const found = stepOf(histogram, width);
        expect(found.step).toBeGreaterThan(0);
        expect(found.error).toBeLessThanOrEqual(stepOf(histogram, width, 'max').error);
      }),
    );
    expect(stepOf(seen([new Float32Array(8), 1]), 8)).toMatchObject({ error: 0 });
  });
});

describe('chooseStretches', () => {
  const place = (scale: number, peak = 4) => {
    const token = Float32Array.from({ length: 64 }, (_, i) => scale * Math.sin(i * i));
    const all = seen([token, 1], [Float32Array.of(scale * peak), 0.001]);
    return { values: [all], stream: all };
  };
  const places = fc.array(fc.tuple(fc.integer({ min: -12, max: 12 }), fc.integer({ min: 1, max: 4000 })), {
    minLength: 1,
    maxLength: 8,
  });

  it('covers all places in order, cuts nothing off, with steps that are powers of two of each other', () => {
    fc.assert(
      fc.property(places, bits, (list, width) => {
        const all = list.map(([octave, peak]) => place(2 ** octave, peak));
        const stretches = chooseStretches(all, width, 1e-4);
        expect(stretches[0]?.from).toBe(0);
        expect(stretches.at(-1)?.to).toBe(all.length);
        for (const [i, { from, to, step }] of stretches.entries()) {
          expect(to).toBeGreaterThan(from);
          if (i > 0) expect(from).toBe(stretches[i - 1]!.to);
          expect(Number.isInteger(Math.log2(step / stretches[0]!.step))).toBe(true);
          expect(Math.fround(step)).toBe(step);
        }
        for (const [at, { stream }] of all.entries()) {
          const { step } = stretchAt(stretches, at);
          const room = (width === 16 ? 2 : 1) * stream.largest;
          expect(room).toBeLessThanOrEqual((largestCode(width) + 0.5) * step * (1 + 1e-6));
        }
      }),
    );
  });

  it('begins another stretch only where one step would not do', () => {
    const all = [place(0.1), place(0.2), place(3, 40), place(5, 40), place(6, 4000), place(5, 4000)];
    const stretches = chooseStretches(all, 16, 1e-4);
    expect(stretches.length).toBeGreaterThan(1);
    for (const [i, { from }] of stretches.entries()) {
      if (i === 0) continue;
      // One place more in the stretch before would have split it, too.
      expect(chooseStretches(all.slice(stretches[i - 1]!.from, from + 1), 16, 1e-4).length).toBe(2);
    }
    expect(chooseStretches(all, 16, Number.POSITIVE_INFINITY)).toHaveLength(1);
    expect(chooseStretches(all.slice(0, 2), 16, 1e-4)).toHaveLength(1);
  });
});
