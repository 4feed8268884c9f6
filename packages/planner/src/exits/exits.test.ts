import path from 'node:path';
import { DecoderSession } from '@cqil/runtime-gpu';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { analyze } from '../anatomy/index.js';
import { type Model, readModel } from '../onnx/index.js';
import { skipLayers } from '../rewrite/index.js';
import { openVariant } from '../variant/index.js';
import { binomialCdf, riskPValue } from './bound.js';
import { measureExits, weightsRead } from './measure.js';
import { applyPolicy, promisedThreshold, type Segment } from './policy.js';
import { ExitStates, topTwo } from './states.js';

const testdata = path.resolve(import.meta.dirname, '../../../../testdata');

describe('the bound', () => {
  it('is the binomial distribution, summed', () => {
    // P[Bin(4, 1/2) ≤ k] = 1/16, 5/16, 11/16, 15/16, 1
    expect([0, 1, 2, 3, 4].map((k) => binomialCdf(4, 0.5, k) * 16)).toEqual(
      [1, 5, 11, 15, 16].map((value) => expect.closeTo(value, 9)),
    );
  });

  it('falls with the evidence and never with more loss', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 400 }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        fc.double({ min: 0.01, max: 0.99, noNaN: true }),
        (n, a, b, risk) => {
          const [less, more] = [Math.min(a, b), Math.max(a, b)];
          expect(riskPValue(n, less, risk)).toBeLessThanOrEqual(riskPValue(n, more, risk) + 1e-12);
          expect(riskPValue(n, risk, risk)).toBeGreaterThan(0.3);
        },
      ),
    );
    expect(riskPValue(1000, 0, 0.01)).toBeLessThan(1e-4);
    expect(riskPValue(0, 0, 0.5)).toBe(1);
  });
});

const segment = (scores: number[][], agrees: number[][]): Segment => ({
  scores: scores.map((row) => Float32Array.from(row)),
  agrees: agrees.map((row) => Uint8Array.from(row)),
});

describe('the policy', () => {
  const two = segment(
    [
      [0.9, 0.1, 0.5],
      [0.2, 0.8, 0.4],
    ],
    [
      [1, 0, 0],
      [1, 1, 0],
    ],
  );

  it('leaves at the first border that is sure enough', () => {
    expect(applyPolicy([two], [0, 1], 0.6)).toEqual({ agreement: 1, exits: [1 / 3, 1 / 3, 1 / 3] });
    expect(applyPolicy([two], [0, 1], 0.45)).toEqual({ agreement: 2 / 3, exits: [2 / 3, 1 / 3, 0] });
    expect(applyPolicy([two], [1], 0)).toEqual({ agreement: 2 / 3, exits: [1, 0] });
  });

  it('promises only what the text shows', () => {
    // One in ten of the tokens above 0.5 is wrong, every second one below.
    const many = Array.from({ length: 300 }, (_, i) =>
      segment([[0.875, 0.25]], [[i % 10 === 0 ? 0 : 1, i % 2]]),
    );
    const promise = (agreement: number) =>
      promisedThreshold(many, [0], [1, 0.875, 0.25], { agreement, confidence: 0.95 });
    expect([0.99, 0.9, 0.5].map(promise)).toEqual([1, 0.875, 0.25]);
    expect(
      promisedThreshold(many.slice(0, 3), [0], [1], { agreement: 0.99, confidence: 0.95 }),
    ).toBeUndefined();
  });

  it('counts heads that were asked, and what skipped layers still need', () => {
    const costs = { layer: 10, keyValue: 1, head: 20 };
    const of = (exits: number[], asked: boolean) => weightsRead(exits, [2], { steps: 4, costs, asked }) * 60;
    expect(of([0, 1], false)).toBeCloseTo(60);
    expect(of([0, 1], true)).toBeCloseTo(80);
    expect(of([1, 0], true)).toBeCloseTo(20 + 2 + 20);
    expect(of([1, 0], false)).toBeCloseTo(20 + 2 + 20);
  });
});

describe('states of a model', () => {
  it.each(['optimum/llama/onnx/model.onnx', 'genai-fp32/qwen2/model.onnx', 'optimum/gpt2/onnx/model.onnx'])(
    '%s: a border says what the model without the layers behind it says',
    async (file) => {
      const model = await readModel(path.join(testdata, file));
      const borders = [1, 3];
      const ids = Array.from({ length: 64 }, (_, i) => (7 * i + 3) % 90);
      const tops = async (of: Model) => {
        await using decoder = new DecoderSession(await openVariant(of));
        const { logits } = await decoder.forward({ inputIds: [ids], keep: 'all' });
        const [, tokens, vocabulary] = logits.dims as [number, number, number];
        return Array.from({ length: tokens }, (_, t) =>
          topTwo((logits.data as Float32Array).subarray(t * vocabulary, (t + 1) * vocabulary)),
        );
      };
      const whole = await tops(model);
      await using states = await ExitStates.open(model, analyze(model), borders);
      const { softmax, saturation } = await states.segments(ids);
      expect([softmax.length, saturation.length]).toEqual([2, 2]);
      for (const [k, border] of borders.entries()) {
        const cut = await tops(skipLayers(model, [0, 1, 2, 3, 4, 5].slice(border)));
        const margins = softmax.flatMap(({ scores }) => [...scores[k]!]);
        expect(margins).toEqual(cut.map(({ margin }) => expect.closeTo(margin, 5)));
        const agrees = softmax.flatMap((segment) => [...segment.agrees[k]!]);
        expect(agrees).toEqual(cut.map(({ token }, t) => (token === whole[t]!.token ? 1 : 0)));
      }
    },
  );

  it('counts what a layer alone reads, and of it what gives keys and values', async () => {
    const model = await readModel(path.join(testdata, 'optimum/llama/onnx/model.onnx'));
    await using states = await ExitStates.open(model, analyze(model), [1]);
    const { layer, keyValue, head } = states.costs;
    // q, o 64 × 64, k, v 64 × 32, gate, up, down 64 × 160; two norms of 64 besides; a head for 512 tokens.
    const weights = 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 160;
    expect(layer / (4 * (weights + 128))).toBeCloseTo(1, 2);
    expect(keyValue / layer).toBeCloseTo((2 * 64 * 32) / weights, 6);
    expect(head / (4 * 64 * 513)).toBeCloseTo(1, 2);
  });

  it('says what no token can gain on a model of random weights', async () => {
    const model = await readModel(path.join(testdata, 'optimum/llama/onnx/model.onnx'));
    const windows = (seed: number) =>
      Array.from({ length: 4 }, (_, w) => Array.from({ length: 64 }, (_, i) => (seed + 31 * w + 7 * i) % 90));
    const set = (seed: number) => ({ kinds: [{ kind: 'noise', windows: windows(seed) }] });
    const report = await measureExits(model, { development: set(1), evaluation: set(50), borders: [2, 4] });
    expect(report.tokens).toEqual({ development: 256, evaluation: 256 });
    expect(report.results.map(({ score, promised }) => [score, promised])).toEqual([
      ['softmax', 0.99],
      ['softmax', 0.95],
      ['softmax', 0.9],
      ['saturation', 0.99],
      ['saturation', 0.95],
      ['saturation', 0.9],
    ]);
    // Eight segments cannot show that 99 % are right.
    expect(report.results[0]).toMatchObject({ threshold: null, cost: 1 });
  });

  it.each([
    [[0], 'borders'],
    [[6], 'borders'],
    [[3, 2], 'borders'],
    [[], 'borders'],
  ])('refuses the borders %j', async (borders, name) => {
    const model = await readModel(path.join(testdata, 'optimum/llama/onnx/model.onnx'));
    const none = { kinds: [] };
    await expect(measureExits(model, { development: none, evaluation: none, borders })).rejects.toMatchObject(
      {
        code: 'EXITS_OPTIONS',
        message: expect.stringContaining(name),
      },
    );
  });
});

it('the margin is that between the two most likely', () => {
  const { token, margin } = topTwo(Float32Array.of(Math.log(1), Math.log(6), Math.log(3)));
  expect(token).toBe(1);
  expect(margin).toBeCloseTo(0.3, 6);
});
