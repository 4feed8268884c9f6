import { mkdtemp, readdir, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { type Bypass, type Plan, PlanError, parsePlan } from '@cqil/core';
import { describe, expect, it } from 'vitest';
import { analyze } from '../../anatomy/index.js';
import { floatAttribute, type Model, readModel, setAttribute, Tensor } from '../../onnx/index.js';
import { locateModel } from '../../source/index.js';
import { rewriteModel } from '../index.js';
import { mergeObstacles, rewriteGroups } from './index.js';

const testdata = path.resolve(import.meta.dirname, '../../../../../testdata');

function pair(layers: number, bypass: Bypass = 'full'): Plan {
  return parsePlan({ version: 1, layers, groups: [{ layers: [1, 2], bypass, form: 'wide' }] });
}

async function reasonFor(model: Model, plan: Plan): Promise<string | undefined> {
  try {
    await rewriteGroups(model, plan);
  } catch (error) {
    if (error instanceof PlanError && error.code === 'PLAN_WIDE_IMPOSSIBLE') return error.found;
    throw error;
  }
  return undefined;
}

describe('a group that is no one layer is refused, and the reason told', () => {
  it.each<[string, string]>([
    ['families/gemma2/genai-fp32/model.onnx', 'a norm stands behind the attention of layer 1'],
    ['families/gemma3_text/optimum/onnx/model.onnx', 'a norm stands behind the attention of layer 1'],
    ['families/olmo2/optimum/onnx/model.onnx', 'a norm stands behind the attention of layer 1'],
    [
      'families/phi/optimum/onnx/model.onnx',
      'layer 1 computes attention and FFN from one input, in one branch',
    ],
    [
      'families/gpt_neox/optimum/onnx/model.onnx',
      'layer 1 computes attention and FFN from one input, in one branch',
    ],
  ])('%s', async (file, reason) => {
    const model = await readModel(path.join(testdata, file));
    const anatomy = analyze(model);
    expect(await reasonFor(model, pair(anatomy.layers.length))).toBe(reason);
    expect([...(await mergeObstacles(model, anatomy, 'wide')).keys()]).toEqual([0, 1, 2]);
  });

  it.each<Bypass>([0, 1])('bypass %s', async (bypass) => {
    const model = await readModel(path.join(testdata, 'genai-fp32/llama/model.onnx'));
    expect(await reasonFor(model, pair(6, bypass))).toBe(
      `its bypass is ${bypass}: only with "full" do all members compute their FFN from one input`,
    );
  });

  /** The attention of layer 2 is changed in each of these. */
  it.each<[string, string, (model: Model) => void]>([
    [
      'another window',
      'local_window_size',
      (model) => setOnAttention(model, 'local_window_size', { int: 16 }),
    ],
    ['another scale', 'scale', (model) => setOnAttention(model, 'scale', { float: 0.5 })],
    ['no rotary embedding', 'do_rotary', (model) => setOnAttention(model, 'do_rotary', { int: 0 })],
    ['another number of heads', 'num_heads', (model) => setOnAttention(model, 'num_heads', { int: 2 })],
    [
      'another rotary base',
      'differ',
      (model) => {
        const attention = attentionOf(model);
        const own = model.graph.initializers.get(attention.input[7] as string) as Tensor;
        const values = Float32Array.from({ length: own.elementCount }, (_, i) => Math.cos(i));
        attention.input[7] = model.graph.addInitializer(
          Tensor.create('other_cos', own.dataType, own.dims, values),
        );
      },
    ],
    [
      'another epsilon',
      'epsilon',
      (model) => {
        const norm = model.graph.nodes.find(({ name }) => name.includes('layers.2/input_layernorm'));
        expect(floatAttribute(norm!, 'epsilon')).toBeCloseTo(1e-6, 12);
        setAttribute(norm!, 'epsilon', { float: 1e-3 });
      },
    ],
    [
      'another activation',
      'Sigmoid',
      (model) => {
        for (const node of model.graph.nodes) {
          if (node.opType === 'Sigmoid' && node.name.includes('layers.2/')) node.opType = 'HardSigmoid';
        }
      },
    ],
  ])('members with %s', async (_, said, change) => {
    const model = await readModel(path.join(testdata, 'genai-fp32/llama/model.onnx'));
    change(model);
    expect(await reasonFor(model, pair(6))).toContain(said);
    // Its neighbours on the other side are as they were.
    expect([...(await mergeObstacles(model, analyze(model), 'wide')).keys()]).toEqual([1, 2]);
  });

  it('members whose windows differ in a graph of plain operators', async () => {
    const model = await readModel(path.join(testdata, 'optimum/llama/onnx/model.onnx'));
    const anatomy = analyze(model);
    const softmax = model.graph.nodes.find(
      ({ opType, name }) => opType === 'Softmax' && name.includes('layers.2/'),
    )!;
    const add = model.graph.producers().get(softmax.input[0] as string)!;
    expect(add.opType).toBe('Add');
    // One mask where the others have another: as where every second layer has a window.
    const mask = Tensor.create('window', 1, [1], Float32Array.of(0));
    add.input[1] = model.graph.addInitializer(mask);
    expect(await reasonFor(model, pair(anatomy.layers.length))).toContain('"window"');
  });

  it('before anything is written', async () => {
    const dir = await mkdtemp(path.join(os.tmpdir(), 'cqil-wide-'));
    try {
      const source = await locateModel(path.join(testdata, 'families/gemma2/genai-fp32'));
      await expect(rewriteModel(source, pair(4), path.join(dir, 'out'))).rejects.toMatchObject({
        code: 'PLAN_WIDE_IMPOSSIBLE',
        path: 'groups[0].form',
        hint: 'Use the form "branches".',
      });
      expect(await readdir(dir)).toEqual([]);
    } finally {
      await rm(dir, { recursive: true });
    }
  });
});

function attentionOf(model: Model) {
  return model.graph.nodes.filter(({ opType }) => opType === 'GroupQueryAttention')[2]!;
}

function setOnAttention(model: Model, name: string, value: Parameters<typeof setAttribute>[2]): void {
  setAttribute(attentionOf(model), name, value);
}
