import path from 'node:path';
import { type Bypass, type Plan, parsePlan } from '@cqil/core';
import { describe, expect, it } from 'vitest';
import { type Anatomy, analyze } from '../../anatomy/index.js';
import { structuralFaults } from '../../onnx/check.js';
import { type Model, readModel, setAttribute, Tensor } from '../../onnx/index.js';
import { verifyRewritten } from '../../verify/index.js';
import { checkParity } from '../../verify/parity.js';
import { rewriteBranches } from '../branches.js';
import { rewriteGroups, splitCaches, wideGroups } from './index.js';

const testdata = path.resolve(import.meta.dirname, '../../../../../testdata');

function open(file: string): Promise<Model> {
  return readModel(path.join(testdata, file));
}

function planOf({ layers }: Anatomy, groups: readonly number[][], bypass: Bypass): Plan {
  return parsePlan({
    version: 1,
    layers: layers.length,
    groups: groups.map((group) => ({ layers: group, bypass, form: 'packed' })),
  });
}

const PAIRS = [
  [0, 1],
  [2, 3],
];

const FLOAT = [
  'genai-fp32/llama/model.onnx',
  'optimum/llama/onnx/model_fp16.onnx',
  'optimum/phi3/onnx/model.onnx',
  'optimum/gpt2/onnx/model.onnx',
  'families/bloom/optimum/onnx/model.onnx',
  'families/granite/optimum/onnx/model.onnx',
  'families/qwen3/optimum/onnx/model.onnx',
];

describe.each(FLOAT)('%s with packed groups in floating point', (file) => {
  it.each<[number[][], Bypass, 'layers' | 'merged']>([
    [PAIRS, 1, 'layers'],
    [PAIRS, 0, 'merged'],
    [[[1, 2, 3]], 1, 'merged'],
  ])('%j, bypass %s, caches %s, computes what the method says', async (groups, bypass, kv) => {
    const source = await open(file);
    const anatomy = analyze(source);
    const plan = planOf(anatomy, groups, bypass);
    const { model, notes } = await rewriteGroups(source, plan, { storage: 'float', kv });
    expect(notes).toEqual([]);
    expect(structuralFaults(model).map(({ message }) => message)).toEqual([]);
    const checks = await checkParity(source, anatomy, splitCaches(model, source, anatomy), plan, {
      short: true,
    });
    expect(checks.filter(({ ok }) => !ok)).toEqual([]);
    expect(checks.filter(({ status }) => status === 'passed').length).toBeGreaterThanOrEqual(3);
  });
});

describe.each([
  'genai-int4/llama/model.onnx',
  'families/qwen3/genai-int4/model.onnx',
  'optimum/llama/onnx/model_quantized.onnx',
])('%s with its blocks put together', (file) => {
  it('passes every check', async () => {
    const source = await open(file);
    const { model } = await rewriteGroups(source, planOf(analyze(source), PAIRS, 1));
    const report = await verifyRewritten(source, model);
    expect(report.checks.filter(({ ok }) => !ok)).toEqual([]);
    expect(report.checks.map(({ name }) => name)).toContain('wide');
  });
});

const count = ({ graph }: Model, types: readonly string[]) =>
  graph.nodes.filter(({ opType }) => types.includes(opType)).length;

it('one norm, one product in front of attention, one attention and one last product are left of a group', async () => {
  const source = await open('genai-fp32/llama/model.onnx');
  const plan = planOf(analyze(source), [[1, 2, 3]], 1);
  const { model } = await rewriteGroups(source, plan, { kv: 'merged' });
  const branches = rewriteBranches(source, {
    ...plan,
    groups: plan.groups.map(({ form: _, ...group }) => group),
  }).model;
  expect(count(branches, ['GroupQueryAttention']) - count(model, ['GroupQueryAttention'])).toBe(2);
  expect(count(branches, ['MatMul']) - count(model, ['MatMul'])).toBe(2 + 2);
  const norms = ['SimplifiedLayerNormalization', 'SkipSimplifiedLayerNormalization'];
  expect(count(branches, norms) - count(model, norms)).toBe(2);
  const [record] = wideGroups(model);
  expect(record?.attention?.products.length).toBe(1);
  expect(record?.ffn?.products.length).toBe(1);
});

it('with full bypass it is a wide layer', async () => {
  const source = await open('genai-fp32/llama/model.onnx');
  const plan = planOf(analyze(source), PAIRS, 'full');
  const wide = { ...plan, groups: plan.groups.map((group) => ({ ...group, form: 'wide' as const })) };
  const [packed, other] = [await rewriteGroups(source, plan), await rewriteGroups(source, wide)];
  const types = ({ graph }: Model) => graph.nodes.map(({ opType }) => opType);
  expect(types(packed.model)).toEqual(types(other.model));
});

describe('what does not merge', () => {
  it('is left as branches where something else does, and said', async () => {
    const source = await open('genai-fp32/llama/model.onnx');
    // Another norm in front of one attention.
    const norm = source.graph.nodes.find(({ name }) => name.includes('layers.2/input_layernorm'))!;
    norm.attribute = norm.attribute.filter(({ name }) => name !== 'epsilon');
    const plan = planOf(analyze(source), [[1, 2]], 1);
    const { model, notes } = await rewriteGroups(source, plan);
    expect(notes).toEqual([expect.stringContaining('Layers 1 to 2 are packed in part: the attention of')]);
    expect(wideGroups(model)[0]?.attention).toBeUndefined();
    const report = await verifyRewritten(source, model);
    expect(report.checks.filter(({ ok }) => !ok)).toEqual([]);
  });

  it('keeps each its own attention behind one product where they are not alike', async () => {
    const source = await open('genai-fp32/llama/model.onnx');
    const attentions = source.graph.nodes.filter(({ opType }) => opType === 'GroupQueryAttention');
    setAttribute(attentions[2]!, 'scale', { float: 0.5 });
    const { model, notes } = await rewriteGroups(source, planOf(analyze(source), [[1, 2]], 1));
    expect(notes).toEqual([]);
    expect(count(model, ['GroupQueryAttention'])).toBe(attentions.length);
    expect(wideGroups(model)[0]?.attention?.products.length).toBe(1);
    const report = await verifyRewritten(source, model);
    expect(report.checks.filter(({ ok }) => !ok)).toEqual([]);
  });

  it.each([
    ['families/gemma2/genai-fp32/model.onnx', 'a norm stands behind the attention of layer 1'],
    [
      'families/phi/optimum/onnx/model.onnx',
      'layer 1 computes attention and FFN from one input, in one branch',
    ],
  ])('is refused where nothing does: %s', async (file, found) => {
    const source = await open(file);
    await expect(rewriteGroups(source, planOf(analyze(source), [[1, 2]], 1))).rejects.toMatchObject({
      code: 'PLAN_PACKED_IMPOSSIBLE',
      path: 'groups[0].form',
      found,
    });
  });
});

it('a part of a packed matrix that is another than the original has is found', async () => {
  const source = await open('genai-int4/llama/model.onnx');
  const { model } = await rewriteGroups(source, planOf(analyze(source), PAIRS, 1));
  const other = await open('genai-int4/llama/model.onnx');
  const scales = other.graph.nodes.find(
    ({ opType, name }) => opType === 'MatMulNBits' && name.includes('layers.1/mlp/down_proj'),
  )?.input[2] as string;
  const tensor = other.graph.initializers.get(scales)!;
  const bytes = Uint8Array.from(await tensor.bytes());
  new DataView(bytes.buffer).setFloat32(0, 0.5, true);
  other.graph.addInitializer(Tensor.create(scales, tensor.dataType, tensor.dims, bytes));
  const report = await verifyRewritten(other, model);
  expect(report.checks.find(({ ok }) => !ok)?.name).toBe('wide');
});
