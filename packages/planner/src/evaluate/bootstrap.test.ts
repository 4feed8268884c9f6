import { seededRandom } from '@cqil/runtime-gpu';
import { describe, expect, it } from 'vitest';
import { meanInterval } from './bootstrap.js';

describe('meanInterval', () => {
  it('holds the true mean about 95 times in 100', () => {
    const random = seededRandom(11);
    let held = 0;
    for (let trial = 0; trial < 200; trial++) {
      const values = Float64Array.from({ length: 1280 }, () => random() + random() + random());
      const { low, high } = meanInterval(values, { block: 16, resamples: 300, seed: trial })!;
      if (low <= 1.5 && 1.5 <= high) held += 1;
    }
    expect(held).toBeGreaterThan(175);
    expect(held).toBeLessThan(200);
  });

  it('is wider for a series whose neighbours go together', () => {
    const random = seededRandom(5);
    const plain = Float64Array.from({ length: 2048 }, random);
    const runs = Float64Array.from(plain, (_, i) => plain[i - (i % 32)]!);
    const width = (values: Float64Array) => {
      const { low, high } = meanInterval(values)!;
      return high - low;
    };
    expect(width(runs)).toBeGreaterThan(3 * width(plain));
  });

  it('says nothing about a short series, and the same about the same one', () => {
    expect(meanInterval(new Float64Array(100))).toBeUndefined();
    const values = Float64Array.from({ length: 500 }, (_, i) => i);
    expect(meanInterval(values)).toEqual(meanInterval(values));
  });
});
