import { describe, expect, it } from 'vitest';
import { pointForTarget, stepsForTarget } from './target.js';

const pairs = Array.from({ length: 5 }, (_, i) => ({ layers: [2 * i, 2 * i + 1], bypass: 0 }));
const triples = [0, 3, 6].map((first) => ({ layers: [first, first + 1, first + 2], bypass: 0 }));
const unreachable = (found: string) =>
  expect.objectContaining({ name: 'UsageError', code: 'TARGET_UNREACHABLE', found });

describe('numbers of steps', () => {
  it.each([
    [{ maxSteps: 10 }, pairs, 10],
    [{ maxSteps: 7 }, pairs, 7],
    // Triples save two steps at a time.
    [{ maxSteps: 7 }, triples, 6],
    [{ targetSpeedup: 1 }, pairs, 10],
    [{ targetSpeedup: 1.3 }, pairs, 7],
    [{ targetSpeedup: 2 }, pairs, 5],
  ])('%j', (target, candidates, steps) => {
    expect(stepsForTarget(target, { layers: 10, candidates })).toBe(steps);
  });

  it('meets a speed-up as it is written, not as it is rounded', () => {
    // 33 / 1.1 is 29.999999999999996 in floating point.
    expect(stepsForTarget({ targetSpeedup: 1.1 }, { layers: 33, candidates: pairs })).toBe(30);
  });

  it('cannot be told from a loss of quality', () => {
    expect(stepsForTarget({ maxQualityLoss: 0.1 }, { layers: 10, candidates: pairs })).toBeUndefined();
  });

  it('says the nearest where a target is out of reach', () => {
    const found = unreachable('5 steps at the fewest, 10 / 5 = 2.00 times as fast');
    expect(() => stepsForTarget({ maxSteps: 4 }, { layers: 10, candidates: pairs })).toThrowError(found);
    expect(() => stepsForTarget({ targetSpeedup: 2.1 }, { layers: 10, candidates: pairs })).toThrowError(
      found,
    );
    expect(() => stepsForTarget({ targetSpeedup: 99 }, { layers: 10, candidates: pairs })).toThrowError(
      found,
    );
  });
});

describe('points', () => {
  const points = [
    { steps: 10, excess: 0 },
    { steps: 9, excess: 0.02 },
    { steps: 8, excess: 0.04 },
    { steps: 7, excess: 0.03 },
    { steps: 5, excess: 0.4 },
    { steps: 4 },
  ];

  it.each([
    [{ maxSteps: 8 }, 8],
    [{ maxSteps: 6 }, 5],
    [{ maxSteps: 4 }, 4],
    [{ targetSpeedup: 1.3 }, 7],
    [{ maxQualityLoss: 0.02 }, 9],
    [{ maxQualityLoss: 0.035 }, 7],
    [{ maxQualityLoss: 3 }, 5],
  ])('%j', (target, steps) => {
    expect(pointForTarget(points, target, 10).steps).toBe(steps);
    expect(pointForTarget(points.toReversed(), target, 10).steps).toBe(steps);
  });

  it('says the nearest where a target is out of reach', () => {
    expect(() => pointForTarget(points, { maxSteps: 3 }, 10)).toThrowError(
      unreachable('4 steps at the fewest, 10 / 4 = 2.50 times as fast'),
    );
    expect(() => pointForTarget(points, { maxQualityLoss: 0.015 }, 10)).toThrowError(
      unreachable('2.00 % excess perplexity at the least, with 9 steps'),
    );
    expect(() => pointForTarget([{ steps: 4 }], { maxQualityLoss: 0.1 }, 10)).toThrowError(
      unreachable('no plan whose excess perplexity was measured'),
    );
    expect(() => pointForTarget([], { maxSteps: 3 }, 10)).toThrowError(unreachable('no plan'));
  });
});

it('names a wrong parameter', () => {
  const model = { layers: 10, candidates: pairs };
  for (const [path, target] of [
    ['maxSteps', { maxSteps: 0 }],
    ['maxSteps', { maxSteps: 7.5 }],
    ['targetSpeedup', { targetSpeedup: 0.9 }],
    ['targetSpeedup', { targetSpeedup: Number.NaN }],
    ['maxQualityLoss', { maxQualityLoss: -0.1 }],
    ['maxQualityLoss', { maxQualityLoss: Number.POSITIVE_INFINITY }],
  ] as const) {
    const fault = expect.objectContaining({ name: 'PlanError', code: 'PLAN_PARAMETERS', path });
    expect(() => stepsForTarget(target, model)).toThrowError(fault);
    expect(() => pointForTarget([], target, 10)).toThrowError(fault);
  }
  for (const [path, point] of [
    ['points[0].steps', { steps: 11 }],
    ['points[0].excess', { steps: 9, excess: Number.NaN }],
  ] as const) {
    expect(() => pointForTarget([point], { maxSteps: 9 }, 10)).toThrowError(
      expect.objectContaining({ code: 'PLAN_PARAMETERS', path }),
    );
  }
});
