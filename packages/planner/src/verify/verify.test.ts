import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { stringifyPlan } from '@cqil/core';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Model, readModel, Tensor, writeModel } from '../onnx/index.js';
import { PLAN_FILE, rewriteBranches, rewriteModel } from '../rewrite/index.js';
import { locateModel } from '../source/index.js';
import { golden, testdata, tinyPlan } from './test/fixtures.js';
import type { VerifyReport } from './types.js';
import { failureOf, rewriteCheck, verify, verifyRewritten } from './verify.js';

const session = { threads: 1 };
const LLAMA = testdata('optimum/llama');
const plan = tinyPlan(
  [
    [1, 2],
    [3, 4],
  ],
  1,
);

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'verify-test-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

/** Rewrites a fixture into a folder and gives its path. */
async function rewritten(source = LLAMA, by = plan, dtype?: string): Promise<string> {
  const out = path.join(folder, `out-${path.basename(source)}-${dtype ?? ''}`);
  await rewriteModel(await locateModel(source, { dtype }), by, out);
  return out;
}

function statuses(report: VerifyReport): Record<string, string> {
  return Object.fromEntries(report.checks.map((check) => [check.name, check.code ?? check.status]));
}

describe('verify', () => {
  it('passes what rewriteModel made, on disk', async () => {
    const out = await rewritten();
    const report = await verify(LLAMA, out, { session });
    expect(failureOf(report)).toBeUndefined();
    expect(report).toMatchObject({ ok: true, arithmetic: 'float32', plan: { groups: plan.groups } });
    expect(report.original).toBe(path.join(LLAMA, 'onnx/model.onnx'));
    expect(report.rewritten).toBe(path.join(out, 'onnx/model.onnx'));
    expect(statuses(report)).toEqual({
      structure: 'passed',
      shapes: 'passed',
      plan: 'passed',
      weights: 'passed',
      'parity.prefill': 'passed',
      'parity.decode': 'passed',
      'parity.padded': 'passed',
    });
  });

  it('gives a report that is JSON', async () => {
    const report = await verify(LLAMA, await rewritten(), { session });
    expect(JSON.parse(JSON.stringify(report))).toEqual(report);
  });

  it.each(['fp16', 'q8'])('compares %s with the graph of the same dtype', async (dtype) => {
    const report = await verify(LLAMA, await rewritten(LLAMA, plan, dtype), { session });
    expect(failureOf(report)).toBeUndefined();
    expect(path.basename(report.original)).toBe(path.basename(report.rewritten));
  });

  it('says why sequences were not padded', async () => {
    const source = testdata('genai-fp32/llama');
    const report = await verify(source, await rewritten(source), { session });
    expect(report.ok).toBe(true);
    expect(statuses(report)).toMatchObject({ 'parity.batch': 'passed', 'parity.padded': 'NO_PADDING' });
  });

  it('measures quality on a text', async () => {
    const text = golden('llama').ids;
    const report = await verify(LLAMA, await rewritten(), { session, text, windows: { window: 16 } });
    expect(report.checks.find((check) => check.name === 'parity.text')).toMatchObject({ status: 'passed' });
    expect(report.checks.at(-1)).toMatchObject({ name: 'quality', status: 'passed' });
    expect(report.checks.at(-1)!.detail).toMatch(/perplexity .* KL .* same best token/);
    expect(report.quality!.kl).toBeGreaterThan(0);
    expect(report.quality!.ratio).toBeCloseTo(report.quality!.b.perplexity / report.quality!.a.perplexity, 9);
  });

  it('runs nothing when only the structure is asked for', async () => {
    const report = await verify(LLAMA, await rewritten(), { structureOnly: true, text: [1, 2, 3] });
    expect(statuses(report)).toMatchObject({ weights: 'passed', parity: 'NOT_WANTED' });
    expect(report.quality).toBeUndefined();
  });

  it('holds the model to another plan where one is given', async () => {
    const report = await verify(LLAMA, await rewritten(), {
      session,
      plan: tinyPlan(
        [
          [1, 2],
          [3, 4],
        ],
        0,
      ),
    });
    expect(report.ok).toBe(false);
    expect(statuses(report)).toMatchObject({ plan: 'passed', 'parity.prefill': 'PARITY' });
  });

  it('wants a text for quality', async () => {
    await expect(verify(LLAMA, LLAMA, { quality: true })).rejects.toMatchObject({ code: 'VERIFY_NO_TEXT' });
  });

  it('throws for what is no model', async () => {
    await expect(verify(LLAMA, path.join(folder, 'nowhere'))).rejects.toMatchObject({
      code: 'MODEL_NOT_FOUND',
    });
    await writeFile(path.join(folder, 'a.onnx'), 'no model');
    await expect(verify(LLAMA, path.join(folder, 'a.onnx'))).rejects.toMatchObject({
      code: 'MODEL_NOT_ONNX',
    });
  });
});

describe('what does not belong together is told apart', () => {
  it('no plan', async () => {
    const copy = path.join(folder, 'copy');
    await cp(LLAMA, copy, { recursive: true });
    expect(statuses(await verify(LLAMA, copy, { session }))).toMatchObject({
      plan: 'PLAN_MISSING',
      parity: 'EARLIER_FAILURE',
    });
  });

  it('a plan for another model', async () => {
    const out = await rewritten();
    const report = await verify(LLAMA, out, { session, plan: { version: 1, layers: 8, groups: [] } });
    expect(statuses(report)).toMatchObject({ plan: 'PLAN_LAYER_COUNT', weights: 'passed' });
  });

  it('a plan file that is not the plan in the model', async () => {
    const out = await rewritten();
    await writeFile(path.join(out, PLAN_FILE), stringifyPlan(tinyPlan([[1, 2]], 1)));
    expect(statuses(await verify(LLAMA, out, { session }))).toMatchObject({ plan: 'PLAN_AMBIGUOUS' });
  });

  it('a plan file that is no plan', async () => {
    const copy = path.join(folder, 'copy');
    await cp(LLAMA, copy, { recursive: true });
    await writeFile(path.join(copy, PLAN_FILE), '{"version": 1');
    expect(statuses(await verify(LLAMA, copy, { session })).plan).toMatch(/^PLAN_/);
  });

  it('a model made from another original of the same shape', async () => {
    const model = await readModel(testdata('genai-fp32/llama/model.onnx'));
    const other = model.clone();
    const [name, tensor] = [...model.graph.initializers].find(([key]) => key.includes('down_proj'))!;
    const bytes = Uint8Array.from(await tensor.bytes());
    new Float32Array(bytes.buffer)[0]! += 1;
    other.graph.initializers.set(name, Tensor.create(name, tensor.dataType, tensor.dims, bytes));
    const report = await verifyRewritten(model, rewriteBranches(other, plan).model);
    expect(statuses(report)).toMatchObject({ plan: 'passed', weights: 'ANOTHER_ORIGINAL' });
    expect(failureOf(report)).toContain(name);
  });

  it('a model made from another original altogether', async () => {
    const report = await verify(testdata('optimum/gpt2'), await rewritten(), { session });
    expect(statuses(report)).toMatchObject({ shapes: 'INTERFACE', weights: 'ANOTHER_ORIGINAL' });
  });
});

describe('verifyRewritten', () => {
  const read = () => readModel(testdata('genai-fp32/llama/model.onnx'));

  it('does not run models over the limit', async () => {
    const model = await read();
    const report = await verifyRewritten(model, rewriteBranches(model, plan).model, { parityLimit: 1000 });
    expect(report.ok).toBe(true);
    expect(statuses(report)).toMatchObject({ structure: 'passed', parity: 'MODEL_TOO_LARGE' });
  });

  it('leaves parity out when it is not wanted', async () => {
    const model = await read();
    const report = await verifyRewritten(model, rewriteBranches(model, plan).model, { parity: false });
    expect(statuses(report)).toMatchObject({ structure: 'passed', parity: 'NOT_WANTED' });
  });

  it.each<[string, Record<string, string>, (model: Model) => void]>([
    ['a node that was lost', { structure: 'ONNX_DANGLING_INPUT' }, (m) => m.graph.nodes.splice(9, 1)],
    ['a node out of order', { structure: 'ONNX_NODE_ORDER' }, (m) => m.graph.nodes.reverse()],
    ['a cache that was lost', { shapes: 'INTERFACE' }, (m) => m.graph.outputs.pop()],
    ['caches in another order', { shapes: 'INTERFACE' }, (m) => m.graph.outputs.reverse()],
  ])('reports %s and runs nothing', async (_, expected, damage) => {
    const model = await read();
    const wrong = rewriteBranches(model, plan).model;
    damage(wrong);
    const report = await verifyRewritten(model, wrong);
    expect(report.ok).toBe(false);
    expect(statuses(report)).toMatchObject({ ...expected, parity: 'EARLIER_FAILURE' });
  });

  it('forgives the rewritten graph what was wrong with the original already', async () => {
    const model = await readModel(testdata('optimum/llama/onnx/model_fp16.onnx'));
    const report = await verifyRewritten(model, rewriteBranches(model, tinyPlan([], 0)).model, {
      parity: false,
    });
    expect(statuses(report)).toMatchObject({ structure: 'passed' });
  });
});

describe('rewriteCheck', () => {
  it('lets rewriteModel keep what is right', async () => {
    const source = await locateModel(testdata('genai-int4/llama'));
    const out = path.join(folder, 'kept');
    await rewriteModel(source, plan, out, { check: rewriteCheck(source) });
    expect(failureOf(await verify(source, out))).toBeUndefined();
  });

  it('says what is wrong', async () => {
    const source = await locateModel(testdata('genai-fp32/llama'));
    const original = await readModel(source.onnxFile);
    const wrong = rewriteBranches(original, tinyPlan([[1, 2]], 0)).model;
    wrong.setMetadata('cqil.plan', stringifyPlan(tinyPlan([[1, 2]], 1)));
    const file = path.join(folder, 'wrong.onnx');
    await writeModel(wrong, file);
    const found = await rewriteCheck(source)(await readModel(file), undefined);
    expect(found).toMatch(/parity\.prefill: .*limit 0\.001/);
  });
});
