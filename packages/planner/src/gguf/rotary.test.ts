import { describe, expect, it } from 'vitest';
import { rotaryFrequencies, rotaryTable } from './rotary.js';

describe('rotary tables', () => {
  const plain = { dimension: 8, base: 10000, positionDivisor: 1 };

  it('have the frequencies of the paper, divided where the model says so', () => {
    expect([...rotaryFrequencies(plain, undefined)]).toEqual([1, 0.1, 0.01, 0.001].map(Math.fround));
    expect(rotaryFrequencies({ ...plain, positionDivisor: 4 }, undefined)[1]).toBeCloseTo(0.025, 8);
    expect(rotaryFrequencies(plain, Float32Array.of(1, 2, 4, 8))[3]).toBeCloseTo(0.001 / 8, 10);
  });

  it('hold cosine and sine of position times frequency, a row a position', async () => {
    const frequencies = rotaryFrequencies(plain, undefined);
    for (const kind of ['cos', 'sin'] as const) {
      const bytes = await rotaryTable(kind, 3, frequencies, 'float32').read();
      const table = new Float32Array(bytes.slice().buffer);
      expect(table).toHaveLength(12);
      expect(table[0]).toBe(kind === 'cos' ? 1 : 0);
      expect(table[2 * 4 + 1]).toBeCloseTo(Math[kind](0.2), 6);
    }
  });
});
