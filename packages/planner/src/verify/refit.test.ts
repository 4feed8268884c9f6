import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Plan } from '@cqil/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { topologicalOrder } from '../anatomy/dataflow.js';
import { analyze } from '../anatomy/index.js';
import { type LinearMap, linearMaps, type MapRole } from '../linear/index.js';
import { type Model, makeNode, type Node, readModel, Tensor } from '../onnx/index.js';
import { RECOVERY_METADATA_KEY, refittedMaps } from '../recover/index.js';
import { setRefittedMaps } from '../recover/metadata.js';
import { rewriteBranches, rewriteModel } from '../rewrite/index.js';
import { locateModel } from '../source/index.js';
import { golden, testdata, tinyPlan } from './test/fixtures.js';
import { mapsOf, refit } from './test/refitting.js';
import type { VerifyReport } from './types.js';
import { failureOf, rewriteCheck, verify, verifyRewritten } from './verify.js';

const session = { threads: 1 };
const plan = tinyPlan([[1, 2]], 1);
const LLAMA = 'optimum/llama/onnx/model.onnx';
const INT4 = 'genai-int4/llama/model.onnx';
const GPT2 = 'optimum/gpt2/onnx/model.onnx';

function statuses(report: VerifyReport): Record<string, string> {
  return Object.fromEntries(report.checks.map((check) => [check.name, check.code ?? check.status]));
}

function detailOf(report: VerifyReport, name: string): string | undefined {
  return report.checks.find((check) => check.name === name)?.detail;
}

/** A recovered model, grouped, as `rewriteModel` would write it. */
async function recovered(model: Model, maps: readonly LinearMap[], by: Plan = plan): Promise<Model> {
  const grouped = rewriteBranches(await refit(model, maps), by).model;
  setRefittedMaps(grouped, maps);
  return grouped;
}

describe.each<[string, MapRole[]]>([
  [LLAMA, ['qkv', 'gate-up', 'down']],
  [LLAMA, ['o']],
  ['optimum/llama/onnx/model_fp16.onnx', ['gate-up', 'down']],
  ['optimum/llama/onnx/model_quantized.onnx', ['qkv', 'down']],
  [INT4, ['qkv', 'o', 'gate-up', 'down']],
  ['genai-fp32/qwen2/model.onnx', ['qkv', 'down']],
  [GPT2, ['qkv', 'o', 'gate-up', 'down']],
  // Here q, k and v read the stream itself, which in a group is the group's input.
  ['families/olmo2/optimum/onnx/model.onnx', ['qkv', 'gate-up']],
  ['families/gpt_neox/optimum/onnx/model.onnx', ['qkv', 'gate-up', 'down']],
])('a recovered %s, %s refitted', (file, roles) => {
  it('does what the method says of the original with those matrices', async () => {
    const model = await readModel(testdata(file));
    const layers = analyze(model).layers.length;
    const by = { ...plan, layers };
    const maps = mapsOf(model, [1, 2], roles);
    expect(new Set(maps.map(({ layer, role }) => `${layer} ${role}`)).size).toBe(2 * roles.length);
    const report = await verifyRewritten(model, await recovered(model, maps, by), { session });
    expect(failureOf(report)).toBeUndefined();
    expect(statuses(report)).toMatchObject({
      recovery: 'passed',
      weights: 'passed',
      'parity.decode': 'passed',
    });
    const named = maps.map(({ layer, role, input, output }) => ({ layer, role, input, output }));
    expect(report.refitted).toHaveLength(named.length);
    expect(report.refitted).toEqual(expect.arrayContaining(named));
    expect(report.refitted?.map(({ layer, role }) => [layer, role])).toEqual(
      named.map(({ layer, role }) => [layer, role]),
    );
    expect(detailOf(report, 'recovery')).toContain(`${maps.length} matrices of layers 1–2: `);
    expect(detailOf(report, 'weights')).toMatch(
      new RegExp(`^${maps.length} matrices were refitted; all other weights, \\d+, are the original's`),
    );
  });
});

describe('a recovered model on disk', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'verify-refit-'));
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  it.each([
    ['optimum/llama', LLAMA],
    ['genai-int4/llama', INT4],
    ['optimum/gpt2', GPT2],
  ])('%s is kept by its check, passes, and is compared with the true original', async (name, file) => {
    const source = await locateModel(testdata(name));
    const model = await readModel(testdata(file));
    const out = path.join(folder, name);
    const taken = await refit(model, mapsOf(model, [1, 2], ['down']));
    await rewriteModel(source, plan, out, { recovered: taken, check: rewriteCheck(source, { session }) });
    const text = golden(path.basename(name)).ids;
    const report = await verify(source, out, { session, text, windows: { window: 16 } });
    expect(failureOf(report)).toBeUndefined();
    expect(JSON.parse(JSON.stringify(report))).toEqual(report);
    expect(report.refitted?.map(({ layer, role }) => `${layer} ${role}`)).toEqual(['1 down', '2 down']);
    expect(statuses(report)).toMatchObject({ 'parity.text': 'passed', quality: 'passed' });

    // The same plan without other matrices predicts otherwise, so the original was not taken with them.
    const plain = path.join(folder, `${name}-plain`);
    await rewriteModel(source, plan, plain);
    const other = await verify(source, plain, { session, text, windows: { window: 16 } });
    expect(other.quality!.a).toEqual(report.quality!.a);
    expect(other.quality!.b.perplexity).not.toBe(report.quality!.b.perplexity);
    expect(statuses(other)).not.toHaveProperty('recovery');
    expect(other).not.toHaveProperty('refitted');
  });

  it('is not kept where its rewriting is wrong', async () => {
    const source = await locateModel(testdata('optimum/gpt2'));
    const model = await readModel(source.onnxFile);
    const taken = await refit(model, mapsOf(model, [1, 2], ['down']));
    const wrong = rewriteModel(source, plan, path.join(folder, 'wrong'), {
      recovered: taken,
      check: rewriteCheck(source, { session, plan: tinyPlan([[1, 2]], 0) }),
    });
    await expect(wrong).rejects.toMatchObject({ code: 'REWRITE_BROKEN' });
  });
});

describe.each([LLAMA, INT4, GPT2])('wrongly recovered: %s', (file) => {
  let model: Model;
  let right: Model;
  let maps: LinearMap[];
  beforeAll(async () => {
    model = await readModel(testdata(file));
    maps = mapsOf(model, [1, 2], ['gate-up', 'down']);
    right = await recovered(model, maps);
  });

  /** Damages a right model and checks it without running it. */
  async function found(damage: (wrong: Model) => void | Promise<void>): Promise<Record<string, string>> {
    const wrong = right.clone();
    await damage(wrong);
    wrong.graph.nodes = topologicalOrder(wrong.graph);
    const report = await verifyRewritten(model, wrong, { parity: false });
    if (report.ok) return {};
    expect(failureOf(report)).toBeDefined();
    return statuses(report);
  }

  const down = (layer: number) => maps.find((map) => map.layer === layer && map.role === 'down')!;
  const maker = (of: Model, output: string): Node => of.graph.producers().get(output)!;
  const refits = (of: Model, layer: number, role: MapRole): Node[] =>
    of.graph.nodes.filter(({ name }) => name.startsWith(`/cqil/refit/layer.${layer}/${role}/`));
  const product = (of: Model, layer: number, role: MapRole = 'down'): Node =>
    refits(of, layer, role).find(({ opType }) => opType.startsWith('MatMul'))!;
  const declare = (wrong: Model, change: (list: ReturnType<typeof refittedMaps>) => unknown) =>
    wrong.setMetadata(RECOVERY_METADATA_KEY, JSON.stringify(change(refittedMaps(wrong))));

  it('is right before it is damaged', async () => {
    expect(await found(() => undefined)).toEqual({});
  });

  it('declares nothing', async () => {
    const silent = (wrong: Model) => {
      wrong.rest.metadataProps = wrong.rest.metadataProps.filter(({ key }) => key !== RECOVERY_METADATA_KEY);
    };
    // What stands under a refit's name is the recovery check's to judge; the weights are not blamed for it, too.
    expect(await found(silent)).toMatchObject({ recovery: 'RECOVERY_UNDECLARED', weights: 'passed' });
  });

  it('declares one too few', async () => {
    expect(await found((wrong) => declare(wrong, (list) => list.slice(1)))).toMatchObject({
      recovery: 'RECOVERY_UNDECLARED',
    });
  });

  it('declares one too many', async () => {
    const { layer, role, input, output } = mapsOf(model, [3], ['down'])[0]!;
    const more = (wrong: Model) => declare(wrong, (list) => [...list, { layer, role, input, output }]);
    expect(await found(more)).toMatchObject({ recovery: 'RECOVERY_MISSING' });
  });

  it.each<[string, (list: ReturnType<typeof refittedMaps>) => unknown]>([
    ['no list', (list) => list[0]],
    ['another role', (list) => list.map((map) => ({ ...map, role: 'norm' }))],
    ['a map twice', (list) => [...list, list[0]]],
    ['a field more', (list) => list.map((map) => ({ ...map, rank: 8 }))],
  ])('declares %s', async (_, change) => {
    expect(await found((wrong) => declare(wrong, change))).toMatchObject({ recovery: 'RECOVERY_METADATA' });
  });

  it.each<[string, Partial<LinearMap>]>([
    ['another layer', { layer: 3 }],
    ['another role', { role: 'o' }],
    ['another input', { input: 'logits' }],
    ['another output', { output: 'logits' }],
  ])('declares a map with %s', async (_, other) => {
    const changed = (wrong: Model) =>
      declare(wrong, (list) => list.map((map, i) => (i === 0 ? { ...map, ...other } : map)));
    expect(await found(changed)).toMatchObject({ recovery: 'RECOVERY_UNKNOWN_MAP' });
  });

  it('makes the outputs of each other’s layers', async () => {
    const swap = (wrong: Model) => {
      const [a, b] = [maker(wrong, down(1).output), maker(wrong, down(2).output)];
      [a.output, b.output] = [b.output, a.output];
    };
    expect(await found(swap)).toMatchObject({ recovery: 'RECOVERY_MISSING' });
  });

  it('reads the weights of another layer', async () => {
    const borrow = (wrong: Model) => {
      product(wrong, 2).input[1] = product(wrong, 1).input[1]!;
    };
    expect(await found(borrow)).toMatchObject({ recovery: 'RECOVERY_FOREIGN_INPUT' });
  });

  it('reads what another map reads', async () => {
    const elsewhere = (wrong: Model) => {
      for (const node of refits(wrong, 2, 'down')) {
        node.input = node.input.map((value) => (value === down(2).input ? down(1).input : value));
      }
    };
    expect(await found(elsewhere)).toMatchObject({ recovery: 'RECOVERY_FOREIGN_INPUT' });
  });

  it('adds a value of another layer', async () => {
    const add = (wrong: Model) => {
      const last = maker(wrong, down(2).output);
      last.output = ['halfway'];
      const name = '/cqil/refit/layer.2/down/Add_9';
      wrong.graph.addNode(makeNode('Add', ['halfway', down(1).output], [down(2).output], { name }));
    };
    expect(await found(add)).toMatchObject({ recovery: 'RECOVERY_FOREIGN_INPUT' });
  });

  it.each([['Relu'], ['Softmax'], ['Exp']])('is no matrix, but ends with %s', async (opType) => {
    const bend = (wrong: Model) => {
      const last = maker(wrong, down(2).output);
      last.output = ['halfway'];
      const name = `/cqil/refit/layer.2/down/${opType}`;
      wrong.graph.addNode(makeNode(opType, ['halfway'], [down(2).output], { name }));
    };
    expect(await found(bend)).toMatchObject({ recovery: 'RECOVERY_NOT_A_MATRIX' });
  });

  it('has a bias more or less than the original', async () => {
    const change = (wrong: Model) => {
      const last = maker(wrong, down(2).output);
      if (down(2).hasBias) {
        // The node that adds the bias passes on what it is added to.
        const add = refits(wrong, 2, 'down').find(({ opType }) => opType === 'Add')!;
        add.opType = 'Identity';
        wrong.graph.initializers.delete(add.input[1]!);
        add.input = [add.input[0]!];
        return;
      }
      last.output = ['halfway'];
      const bias = new Float32Array(down(2).outFeatures).fill(0.1);
      const weight = 'cqil.refit.layer.2.down.bias';
      wrong.graph.addInitializer(Tensor.create(weight, 1, [bias.length], bias));
      const name = '/cqil/refit/layer.2/down/Add_9';
      wrong.graph.addNode(makeNode('Add', ['halfway', weight], [down(2).output], { name }));
    };
    expect(await found(change)).toMatchObject({ recovery: 'RECOVERY_NOT_A_MATRIX' });
  });

  it('makes a value of the original besides', async () => {
    // Of a later layer, so that nothing waits for itself.
    const other = linearMaps(model, analyze(model)).maps.at(-1);
    const more = (wrong: Model) => {
      wrong.graph.nodes = wrong.graph.nodes.filter((node) => !node.output.includes(other!.output));
      const last = maker(wrong, down(2).output);
      last.output = [other!.output];
      const name = '/cqil/refit/layer.2/down/Identity';
      wrong.graph.addNode(makeNode('Identity', [other!.output], [down(2).output], { name }));
    };
    expect(await found(more)).toMatchObject({ recovery: 'RECOVERY_NOT_A_MATRIX' });
  });

  it('has a matrix that stands under another name', async () => {
    const hide = (wrong: Model) => {
      for (const node of refits(wrong, 2, 'down')) node.name = node.name.replace('/cqil/refit/', '/mine/');
    };
    expect(await found(hide)).toMatchObject({ recovery: 'RECOVERY_MISSING', weights: 'ANOTHER_ORIGINAL' });
    const quietly = (wrong: Model) => {
      hide(wrong);
      declare(wrong, (list) => list.filter(({ layer, role }) => layer !== 2 || role !== 'down'));
    };
    expect(await found(quietly)).toMatchObject({ recovery: 'passed', weights: 'ANOTHER_ORIGINAL' });
  });

  it.each(['first', 'last'])('has a weight of the original with another %s byte', async (place) => {
    const change = async (wrong: Model) => {
      const shared = [...model.graph.initializers].filter(([name]) => wrong.graph.initializers.has(name));
      const [name, tensor] = shared.reduce((a, b) => (b[1].byteLength > a[1].byteLength ? b : a));
      const bytes = Uint8Array.from(await tensor.bytes());
      bytes[place === 'first' ? 0 : bytes.length - 1]! ^= 1;
      wrong.graph.initializers.set(name, Tensor.create(name, tensor.dataType, tensor.dims, bytes));
    };
    expect(await found(change)).toMatchObject({ recovery: 'passed', weights: 'ANOTHER_ORIGINAL' });
  });

  it('is not judged without a plan that fits', async () => {
    const report = await verifyRewritten(model, right, { parity: false, plan: { ...plan, layers: 7 } });
    expect(statuses(report)).toMatchObject({
      plan: 'PLAN_LAYER_COUNT',
      recovery: 'EARLIER_FAILURE',
      weights: 'passed',
    });
    expect(report.refitted).toBeUndefined();
  });

  it('is rewritten wrongly, with the right matrices', async () => {
    const report = await verifyRewritten(model, right, { session, plan: tinyPlan([[1, 2]], 0) });
    expect(statuses(report)).toMatchObject({
      recovery: 'passed',
      weights: 'passed',
      'parity.prefill': 'PARITY',
    });
  });

  it('is rewritten wrongly, its refitted layer out of the sum', async () => {
    const wrong = right.clone();
    const { output } = down(2);
    for (const node of wrong.graph.nodes) {
      const at = node.input.indexOf(output);
      if (at >= 0) node.input[at] = down(1).output;
    }
    const report = await verifyRewritten(model, wrong, { session });
    expect(report.ok).toBe(false);
    expect(statuses(report)).toMatchObject({ 'parity.prefill': 'PARITY' });
  });
});
