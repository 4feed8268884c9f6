import { asFloat32, decoderSignature, openSession, type TensorValue } from '@cqil/runtime-gpu';
import { describe, expect, it } from 'vitest';
import { analyze } from '../anatomy/index.js';
import { readModel } from '../onnx/index.js';
import { makeCase } from './cases.js';
import { best, maxAbsDifference } from './compare.js';
import { runMethod } from './method.js';
import { golden, testdata, tinyPlan } from './test/fixtures.js';

const MODELS = [
  ['optimum/llama/onnx/model.onnx', 'llama'],
  ['optimum/qwen2/onnx/model.onnx', 'qwen2'],
  ['optimum/phi3/onnx/model.onnx', 'phi3'],
  ['optimum/gpt2/onnx/model.onnx', 'gpt2'],
  ['genai-fp32/llama/model.onnx', 'llama'],
  ['genai-fp32/qwen2/model.onnx', 'qwen2'],
] as const;

describe.each(MODELS)('%s, cut apart and joined by the formulas', (file, family) => {
  it('computes what an independent implementation computes, for every plan', async () => {
    const model = await readModel(testdata(file));
    const anatomy = analyze(model);
    const session = await openSession(testdata(file));
    const signature = decoderSignature(session.inputs, session.outputs);
    await session.dispose();
    const { ids, plans } = golden(family);
    const cases = [makeCase('prefill', [ids], []), makeCase('decode', [ids.slice(0, 15)], [ids.slice(15)])];
    for (const plan of plans) {
      const runs = await runMethod(model, anatomy, tinyPlan(plan.groups, plan.bypass), signature, cases, {
        session: { threads: 1 },
      });
      for (const { steps } of runs) {
        const logits = steps.map((step) => asFloat32(step.logits as TensorValue));
        const all = Float32Array.from(logits.flatMap((part) => [...part]));
        const size = plan.logits_last.length;
        const rows = ids.map((_, row) => all.subarray(row * size, (row + 1) * size));
        expect(rows.map((row) => best(row).index)).toEqual(plan.argmax);
        const limit = Math.min(1e-3, 0.05 * plan.max_abs_change);
        expect(
          maxAbsDifference(rows.at(-1) as Float32Array, Float32Array.from(plan.logits_last)),
        ).toBeLessThan(limit);
      }
    }
  });
});
