import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { analyze } from '../../anatomy/index.js';
import { logitsOf, testdata } from '../../linear/testing/fixtures.js';
import { structuralFaults } from '../../onnx/check.js';
import { type Model, readModel } from '../../onnx/index.js';
import { rewriteBranches } from '../../rewrite/index.js';
import { readValues } from '../../rewrite/unread-weights.js';
import { decoderGraph, prepared } from './qdq.js';
import { Rotation, rotateStream } from './rotate.js';

const dot = (a: Float32Array, b: Float32Array) => a.reduce((sum, value, i) => sum + value * b[i]!, 0);
const vector = (length: number) =>
  fc
    .array(fc.float({ min: -8, max: 8, noNaN: true }), { minLength: length, maxLength: length })
    .map((list) => Float32Array.from(list));
const pairOf = fc
  .constantFrom(1, 2, 3, 8, 12, 36, 72)
  .chain((length) => fc.tuple(vector(length), vector(length)));

describe('Rotation', () => {
  it('keeps lengths and angles', () => {
    fc.assert(
      fc.property(pairOf, ([a, b]) => {
        const rotation = new Rotation(a.length);
        const [x, y] = [rotation.rows(a), rotation.rows(b)];
        expect(dot(x, y)).toBeCloseTo(dot(a, b), 2);
        expect(dot(x, x)).toBeCloseTo(dot(a, a), 2);
        // A column is turned as a row is.
        expect(rotation.columns(b)).toEqual(y);
      }),
    );
  });

  it('spreads one entry over all of them', () => {
    for (const length of [64, 576, 960]) {
      const one = new Float32Array(length);
      one[5] = 1000;
      const turned = new Rotation(length).rows(one);
      const most = turned.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0);
      expect(most).toBeLessThanOrEqual((1000 * Math.SQRT2 * 1.0001) / Math.sqrt(length));
    }
  });
});

async function turnedOf(source: Model): Promise<Model> {
  const found = rotateStream(await decoderGraph(source));
  if ('obstacle' in found) throw new Error(found.obstacle);
  return found.model;
}

const off = (a: Float32Array, b: Float32Array) => {
  const difference = a.map((value, i) => value - b[i]!);
  return Math.sqrt(dot(difference, difference) / dot(b, b));
};

describe('rotateStream', () => {
  const read = (file: string) => readModel(testdata(file));

  it.each(['genai-fp32/llama/model.onnx', 'genai-fp32/qwen2/model.onnx'])(
    '%s computes the same with another stream',
    async (file) => {
      const source = await read(file);
      const turned = await turnedOf(source);
      expect(structuralFaults(turned)).toEqual(structuralFaults(source));
      expect(off(await logitsOf(turned), await logitsOf(source))).toBeLessThan(1e-5);
      // The old matrices are gone, and so is what a tied head read them through.
      const known = readValues(turned);
      expect([...turned.graph.initializers.keys()].filter((name) => !known.has(name))).toEqual([]);
    },
  );

  it('turns groups, too', async () => {
    const source = await read('genai-fp32/llama/model.onnx');
    const { length } = analyze(source).layers;
    const plan = { version: 1 as const, layers: length, groups: [{ layers: [1, 2, 3], bypass: 1 }] };
    const { model } = rewriteBranches(source, plan);
    expect(off(await logitsOf(await turnedOf(model)), await logitsOf(model))).toBeLessThan(1e-5);
  });

  it.each([
    ['optimum/llama/onnx/model.onnx', /norms are not fused ones .*cqil fuse/],
    ['optimum/gpt2/onnx/model.onnx', /norms are not fused ones by root mean square/],
    [
      'families/gemma2/genai-fp32/model.onnx',
      /^"[^"]+", which \S.* adds to the stream, comes from \S.*, neither a lookup/,
    ],
  ])('leaves %s as it is, and says why', async (file, reason) => {
    const source = await read(file);
    const { graph, rotation } = await prepared(source, { session: undefined, rotate: 'auto' });
    expect(rotation).toEqual({ applied: false, reason: expect.stringMatching(reason) });
    expect(graph.model.graph.nodes.length).toBeGreaterThanOrEqual(source.graph.nodes.length);
  });
});
