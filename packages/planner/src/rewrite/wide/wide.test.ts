import path from 'node:path';
import { type Plan, parsePlan } from '@cqil/core';
import { describe, expect, it } from 'vitest';
import { type Anatomy, analyze } from '../../anatomy/index.js';
import { structuralFaults } from '../../onnx/check.js';
import { type Model, readModel } from '../../onnx/index.js';
import { verifyRewritten } from '../../verify/index.js';
import { checkParity } from '../../verify/parity.js';
import { rewriteGroups, splitCaches } from './index.js';

const testdata = path.resolve(import.meta.dirname, '../../../../../testdata');

function open(file: string): Promise<Model> {
  return readModel(path.join(testdata, file));
}

function planOf({ layers }: Anatomy, groups: readonly number[][], form: 'wide' | 'branches' = 'wide'): Plan {
  return parsePlan({
    version: 1,
    layers: layers.length,
    groups: groups.map((group) => ({ layers: group, bypass: 'full', form })),
  });
}

/** Graphs whose products are computed in floating point, with one or several products before the attention. */
const FLOAT = [
  'genai-fp32/llama/model.onnx',
  'genai-fp32/qwen2/model.onnx',
  'genai-int4/llama/model.onnx',
  'optimum/llama/onnx/model.onnx',
  'optimum/llama/onnx/model_fp16.onnx',
  'optimum/qwen2/onnx/model.onnx',
  'optimum/phi3/onnx/model.onnx',
  'optimum/gpt2/onnx/model.onnx',
  'families/bloom/optimum/onnx/model.onnx',
  'families/gpt2/fused/model.onnx',
  'families/granite/optimum/onnx/model.onnx',
  'families/opt/optimum/onnx/model.onnx',
  'families/opt/optimum/onnx/model_q4f16.onnx',
  'families/qwen3/genai-int4/model.onnx',
  'families/qwen3/optimum/onnx/model.onnx',
];

describe.each(FLOAT)('%s with wide groups in floating point', (file) => {
  it.each<[number[][], 'layers' | 'merged']>([
    [
      [
        [0, 1],
        [2, 3],
      ],
      'layers',
    ],
    [[[1, 2, 3]], 'merged'],
  ])('%j, caches %s, computes what the method says', async (groups, kv) => {
    const source = await open(file);
    const anatomy = analyze(source);
    const plan = planOf(anatomy, groups);
    const { model } = await rewriteGroups(source, plan, { storage: 'float', kv });
    expect(structuralFaults(model).map(({ message }) => message)).toEqual([]);
    const checks = await checkParity(source, anatomy, splitCaches(model, source, anatomy), plan, {
      short: true,
    });
    expect(checks.filter(({ ok }) => !ok)).toEqual([]);
    expect(checks.filter(({ status }) => status === 'passed').length).toBeGreaterThanOrEqual(3);
  });
});

const QUANTISED = [
  'genai-int4/llama/model.onnx',
  'families/qwen3/genai-int4/model.onnx',
  'families/opt/optimum/onnx/model_q4f16.onnx',
  'optimum/llama/onnx/model_quantized.onnx',
];

describe.each(QUANTISED)('%s with its blocks quantised anew', (file) => {
  it('passes every check', async () => {
    const source = await open(file);
    const plan = planOf(analyze(source), [
      [0, 1],
      [2, 3],
    ]);
    const { model } = await rewriteGroups(source, plan);
    const report = await verifyRewritten(source, model);
    expect(report.checks.filter(({ ok }) => !ok)).toEqual([]);
  });
});
