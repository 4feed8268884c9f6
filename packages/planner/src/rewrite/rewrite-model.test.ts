import { cp, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { type Plan, parsePlan } from '@cqil/core';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { analyze } from '../anatomy/index.js';
import { readModel } from '../onnx/index.js';
import { locateModel } from '../source/index.js';
import { PLAN_METADATA_KEY, rewriteBranches, rewriteModel } from './index.js';

const testdata = path.resolve(import.meta.dirname, '../../../../testdata');
const plan: Plan = { version: 1, layers: 6, groups: [{ layers: [1, 2], bypass: 1 }] };
const nothing: Plan = { version: 1, layers: 6, groups: [] };

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(path.join(os.tmpdir(), 'cqil-rewrite-'));
});
afterEach(() => rm(dir, { recursive: true, force: true }));

describe('rewriteModel', () => {
  it('mirrors an Optimum folder: one model, all side files, the plan', async () => {
    const source = await locateModel(path.join(testdata, 'optimum/llama'), { dtype: 'fp16' });
    const { root, onnxFile } = await rewriteModel(source, plan, path.join(dir, 'out'));
    expect((await readdir(root)).sort()).toEqual([
      'config.json',
      'cqil.plan.json',
      'generation_config.json',
      'onnx',
    ]);
    expect(await readdir(path.join(root, 'onnx'))).toEqual(['model_fp16.onnx']);
    expect(parsePlan(await readFile(path.join(root, 'cqil.plan.json'), 'utf8'))).toEqual(plan);
    const metadata = (await readModel(onnxFile)).metadata(PLAN_METADATA_KEY);
    expect(parsePlan(metadata)).toEqual(plan);
    const config = JSON.parse(await readFile(path.join(root, 'config.json'), 'utf8'));
    expect(config['transformers.js_config']).toEqual({ dtype: 'fp16' });
  });

  it('mirrors a GenAI folder with its data file', async () => {
    const source = await locateModel(path.join(testdata, 'genai-int4/llama'));
    const { root } = await rewriteModel(source, plan, path.join(dir, 'out'));
    expect((await readdir(root)).sort()).toEqual([
      'cqil.plan.json',
      'genai_config.json',
      'model.onnx',
      'model.onnx.data',
    ]);
    const data = path.join(testdata, 'genai-int4/llama/model.onnx.data');
    expect((await readFile(path.join(root, 'model.onnx.data'))).equals(await readFile(data))).toBe(true);
  });

  it('gives the same bytes each time', async () => {
    const source = await locateModel(path.join(testdata, 'optimum/gpt2'));
    const first = await rewriteModel(source, plan, path.join(dir, 'a'));
    const second = await rewriteModel(source, plan, path.join(dir, 'b'));
    expect((await readFile(first.onnxFile)).equals(await readFile(second.onnxFile))).toBe(true);
  });

  it('gives back the graph where the plan has no groups', async () => {
    const source = await locateModel(path.join(testdata, 'optimum/phi3'));
    const { onnxFile } = await rewriteModel(source, nothing, path.join(dir, 'out'));
    const before = await readModel(source.onnxFile);
    const after = await readModel(onnxFile);
    expect(after.graph.nodes).toEqual(before.graph.nodes);
    expect([...after.graph.initializers.keys()]).toEqual([...before.graph.initializers.keys()]);
  });

  it('works in a hub cache, where every file is a link to a blob', async () => {
    const snapshot = path.join(dir, 'hub/snapshots/main');
    const blobs = path.join(dir, 'hub/blobs');
    await mkdir(snapshot, { recursive: true });
    await mkdir(blobs);
    for (const [index, name] of (await readdir(path.join(testdata, 'genai-fp32/llama'))).entries()) {
      await cp(path.join(testdata, 'genai-fp32/llama', name), path.join(blobs, `blob${index}`));
      await symlink(path.join('../../blobs', `blob${index}`), path.join(snapshot, name));
    }
    const { root } = await rewriteModel(await locateModel(snapshot), plan, path.join(dir, 'out'));
    expect(await readdir(root)).toContain('model.onnx.data');
  });

  it('keeps nothing of a model that fails its check', async () => {
    const source = await locateModel(path.join(testdata, 'optimum/llama'));
    const rewriting = rewriteModel(source, plan, path.join(dir, 'out'), {
      check: async () => 'logits off by 3',
    });
    await expect(rewriting).rejects.toMatchObject({ code: 'REWRITE_BROKEN', found: 'logits off by 3' });
    expect(await readdir(dir)).toEqual([]);
  });

  it('keeps nothing when it is stopped', async () => {
    const source = await locateModel(path.join(testdata, 'optimum/llama'));
    const controller = new AbortController();
    const rewriting = rewriteModel(source, plan, path.join(dir, 'out'), {
      signal: controller.signal,
      onProgress: () => controller.abort(),
    });
    await expect(rewriting).rejects.toMatchObject({ name: 'AbortError' });
    expect(await readdir(dir)).toEqual([]);
  });

  it('overwrites only what it wrote itself, and only by force', async () => {
    const source = await locateModel(path.join(testdata, 'optimum/llama'));
    const out = path.join(dir, 'out');
    await rewriteModel(source, plan, out);
    await expect(rewriteModel(source, nothing, out)).rejects.toMatchObject({ code: 'OUTPUT_NOT_EMPTY' });
    await rewriteModel(source, nothing, out, { force: true });
    expect(parsePlan(await readFile(path.join(out, 'cqil.plan.json'), 'utf8')).groups).toEqual([]);

    const foreign = path.join(dir, 'foreign');
    await mkdir(foreign);
    await writeFile(path.join(foreign, 'thesis.txt'), 'years of work');
    await expect(rewriteModel(source, plan, foreign, { force: true })).rejects.toMatchObject({
      code: 'OUTPUT_NOT_EMPTY',
    });
    expect(await readdir(foreign)).toEqual(['thesis.txt']);
  });

  it('never writes over its source', async () => {
    const copy = path.join(dir, 'model');
    await cp(path.join(testdata, 'optimum/llama'), copy, { recursive: true });
    const source = await locateModel(copy);
    for (const out of [copy, path.join(copy, 'onnx')]) {
      await expect(rewriteModel(source, plan, out, { force: true })).rejects.toMatchObject({
        code: 'OUTPUT_IS_SOURCE',
      });
    }
  });

  it.each<[string, Plan, string]>([
    ['for another model', { ...plan, layers: 30 }, 'PLAN_LAYER_COUNT'],
    [
      'in a form that cannot be written',
      { ...plan, groups: [{ layers: [1, 2], bypass: 0, form: 'wide' }] },
      'PLAN_FORM_UNSUPPORTED',
    ],
    [
      'with overlapping groups',
      {
        ...plan,
        groups: [
          { layers: [1, 2], bypass: 0 },
          { layers: [2, 3], bypass: 0 },
        ],
      },
      'PLAN_OVERLAP',
    ],
    ['with gaps', { ...plan, groups: [{ layers: [1, 3], bypass: 0 }] }, 'PLAN_NOT_NEIGHBOURS'],
  ])('refuses a plan %s', async (_, wrong, code) => {
    const source = await locateModel(path.join(testdata, 'optimum/llama'));
    await expect(rewriteModel(source, wrong, path.join(dir, 'out'))).rejects.toMatchObject({ code });
    expect(await readdir(dir)).toEqual([]);
  });

  it('refuses a model that is rewritten already, which can still be looked at', async () => {
    for (const model of ['optimum/llama', 'families/opt/optimum', 'genai-fp32/qwen2']) {
      const source = await locateModel(
        path.join(testdata, model),
        model === 'optimum/llama' ? { dtype: 'fp32' } : {},
      );
      const layers = analyze(await readModel(source.onnxFile)).layers.length;
      const out = path.join(dir, path.basename(model));
      const { onnxFile } = await rewriteModel(source, { ...plan, layers }, out);
      const rewritten = await readModel(onnxFile);
      const seen = analyze(rewritten).layers;
      expect(seen).toHaveLength(layers - 1);
      expect(seen[1]?.cache.outputs).toHaveLength(4);
      expect(() => rewriteBranches(rewritten, { ...plan, layers: layers - 1 })).toThrowError(
        expect.objectContaining({ code: 'MODEL_ALREADY_PLANNED' }),
      );
    }
  });

  it('adds no casts where the stream has one type', async () => {
    const source = await readModel(path.join(testdata, 'optimum/llama/onnx/model.onnx'));
    const added = rewriteBranches(source, plan).model.graph.nodes.filter(({ name }) =>
      name.startsWith('/cqil/'),
    );
    expect(added.map(({ name, opType }) => `${opType} ${name}`)).toEqual([
      'Add /cqil/group.0/layer.1/ffn_input/Add',
      'Add /cqil/group.0/layer.2/bypass/Add',
      'Add /cqil/group.0/layer.2/ffn_input/Add',
      'Add /cqil/group.0/sum/Add',
      'Add /cqil/group.0/sum/Add_1',
      'Add /cqil/group.0/sum/Add_2',
      'Add /cqil/group.0/output/Add',
    ]);
  });
});
