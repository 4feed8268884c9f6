import { mkdtemp, readFile, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { parsePlan } from '@cqil/core';
import { DecoderSession } from '@cqil/runtime-gpu';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { readModel, writeModel } from '../onnx/index.js';
import { rewriteBranches } from './index.js';

const testdata = path.resolve(import.meta.dirname, '../../../../testdata');

interface Golden {
  ids: number[];
  plans: {
    groups: number[][];
    bypass: number | 'full';
    argmax: number[];
    logits_last: number[];
    max_abs_change: number;
  }[];
}

const MODELS: [model: string, golden: string][] = [
  ['optimum/llama/onnx/model.onnx', 'tiny-llama'],
  ['optimum/qwen2/onnx/model.onnx', 'tiny-qwen2'],
  ['optimum/phi3/onnx/model.onnx', 'tiny-phi3'],
  ['optimum/gpt2/onnx/model.onnx', 'tiny-gpt2'],
  ['genai-fp32/llama/model.onnx', 'tiny-llama'],
  ['genai-fp32/qwen2/model.onnx', 'tiny-qwen2'],
];

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(path.join(os.tmpdir(), 'cqil-rewrite-'));
});
afterEach(() => rm(dir, { recursive: true, force: true }));

function argmaxRows(logits: Float32Array, vocabulary: number): number[] {
  return Array.from({ length: logits.length / vocabulary }, (_, row) => {
    const values = logits.subarray(row * vocabulary, (row + 1) * vocabulary);
    return values.indexOf(Math.max(...values));
  });
}

describe.each(MODELS)(
  '%s, rewritten, computes what an independent implementation computes',
  (model, name) => {
    it('for every plan, in prefill and in decode', async () => {
      const golden = JSON.parse(
        await readFile(path.join(testdata, 'golden', `${name}.json`), 'utf8'),
      ) as Golden;
      const source = await readModel(path.join(testdata, model));
      expect(golden.plans.length).toBeGreaterThan(5);
      for (const [index, expected] of golden.plans.entries()) {
        const plan = parsePlan({
          version: 1,
          layers: 6,
          groups: expected.groups.map((layers) => ({ layers, bypass: expected.bypass })),
        });
        const file = path.join(dir, `${index}`, 'model.onnx');
        await writeModel(rewriteBranches(source, plan).model, file);
        const decoder = await DecoderSession.open(file);
        try {
          const limit = Math.min(1e-3, 0.05 * expected.max_abs_change);
          const whole = await decoder.forward({ inputIds: [golden.ids] });
          const vocabulary = expected.logits_last.length;
          expect(argmaxRows(whole.logits.data, vocabulary)).toEqual(expected.argmax);
          expect(distance(whole.logits.data.slice(-vocabulary), expected.logits_last)).toBeLessThanOrEqual(
            limit,
          );

          let step = await decoder.forward({ inputIds: [golden.ids.slice(0, 15)] });
          const best = argmaxRows(step.logits.data, vocabulary);
          for (const id of golden.ids.slice(15)) {
            step = await decoder.forward({ inputIds: [[id]], cache: step.cache });
            best.push(...argmaxRows(step.logits.data, vocabulary));
          }
          expect(best).toEqual(expected.argmax);
          expect(distance(step.logits.data, expected.logits_last)).toBeLessThanOrEqual(limit);
        } finally {
          await decoder.dispose();
        }
      }
    });
  },
);

function distance(actual: Float32Array, expected: readonly number[]): number {
  // NaN must not pass as "not larger".
  return actual.reduce((worst, value, i) => Math.max(worst, Math.abs(value - (expected[i] as number))), 0);
}
