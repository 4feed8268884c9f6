import { cp, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { type Plan, parsePlan } from '@cqil/core';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { analyze } from '../anatomy/index.js';
import { FileRange, readModel } from '../onnx/index.js';
import { RECOVERY_METADATA_KEY, recover, refittedMaps } from '../recover/index.js';
import { locateModel } from '../source/index.js';
import { mapsOf, refit } from '../verify/test/refitting.js';
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
      'in a form that its bypass does not have',
      { ...plan, groups: [{ layers: [1, 2], bypass: 0, form: 'wide' }] },
      'PLAN_WIDE_IMPOSSIBLE',
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

describe('rewriteModel with a recovered model', () => {
  const recovered = async (file: string) => {
    const model = await readModel(path.join(testdata, file));
    return refit(model, mapsOf(model, [1, 2], ['gate-up', 'down']));
  };

  it('writes its matrices, the plan, and the list of what was refitted', async () => {
    const source = await locateModel(path.join(testdata, 'optimum/llama'), { dtype: 'fp32' });
    const model = await recovered('optimum/llama/onnx/model.onnx');
    const out = path.join(dir, 'out');
    const { onnxFile } = await rewriteModel(source, plan, out, { recovered: model });
    expect((await readdir(out)).sort()).toEqual([
      'config.json',
      'cqil.plan.json',
      'generation_config.json',
      'onnx',
    ]);
    const written = await readModel(onnxFile);
    const original = await readModel(source.onnxFile);
    expect(parsePlan(written.metadata(PLAN_METADATA_KEY))).toEqual(plan);
    expect(refittedMaps(written)).toEqual(
      mapsOf(original, [1, 2], ['gate-up', 'down']).map(({ layer, role, input, output }) => {
        return { layer, role, input, output };
      }),
    );
    const fresh = [...written.graph.initializers.keys()].filter(
      (name) => !original.graph.initializers.has(name),
    );
    expect(fresh).toHaveLength(6);
    for (const name of fresh) {
      expect(name).toMatch(/^cqil\.refit\.layer\.[12]\.(gate-up|down)\.weight/);
      const bytes = await written.graph.initializers.get(name)!.bytes();
      expect(bytes).toEqual(await model.graph.initializers.get(name)!.bytes());
    }
    expect(written.graph.initializers.size).toBe(original.graph.initializers.size);
    // The model in memory is as it was.
    expect(model.metadata(RECOVERY_METADATA_KEY)).toBeUndefined();
  });

  it('takes what recover gives', async () => {
    const source = await locateModel(path.join(testdata, 'optimum/gpt2'));
    const original = await readModel(source.onnxFile);
    const windows = (seed: number) =>
      Array.from({ length: 12 }, (_, row) =>
        Array.from({ length: 48 }, (_, i) => 1 + ((i * i * seed + row * 31) % 248)),
      );
    const { model, groups } = await recover(original, analyze(original), plan, {
      calibration: windows(3),
      development: windows(5),
      roles: ['down'],
      session: { threads: 1 },
    });
    const { onnxFile } = await rewriteModel(source, plan, path.join(dir, 'out'), { recovered: model });
    const kept = groups.flatMap(({ replacements }) => replacements.map(({ map }) => map.output));
    expect(kept).toHaveLength(2);
    expect(refittedMaps(await readModel(onnxFile)).map(({ output }) => output)).toEqual(kept);
  });

  it('gives the same bytes each time', async () => {
    const source = await locateModel(path.join(testdata, 'genai-int4/llama'));
    for (const name of ['a', 'b']) {
      const model = await recovered('genai-int4/llama/model.onnx');
      await rewriteModel(source, plan, path.join(dir, name), { recovered: model });
    }
    for (const file of ['model.onnx', 'model.onnx.data']) {
      const [a, b] = await Promise.all(['a', 'b'].map((name) => readFile(path.join(dir, name, file))));
      expect(a!.equals(b!)).toBe(true);
    }
  });

  it('keeps weights out of the graph where the source does, new ones too, and leaves no gaps', async () => {
    const source = await locateModel(path.join(testdata, 'genai-int4/llama'));
    const model = await recovered('genai-int4/llama/model.onnx');
    // Piece by piece: no weight that is on disk is read as a whole.
    const whole = vi.spyOn(FileRange.prototype, 'read');
    const { root, onnxFile } = await rewriteModel(source, plan, path.join(dir, 'out'), { recovered: model });
    expect(whole.mock.contexts.filter((range) => (range as FileRange).byteLength >= 1024)).toEqual([]);
    whole.mockRestore();
    expect((await readdir(root)).sort()).toEqual([
      'cqil.plan.json',
      'genai_config.json',
      'model.onnx',
      'model.onnx.data',
    ]);
    const written = await readModel(onnxFile);
    const ranges: [from: number, to: number][] = [];
    for (const [name, tensor] of written.graph.initializers) {
      const given = model.graph.initializers.get(name)!;
      expect(await tensor.bytes()).toEqual(await given.bytes());
      if (tensor.location === undefined) {
        expect(tensor.byteLength).toBeLessThan(1024);
        continue;
      }
      const { offset, byteLength } = tensor.data as FileRange;
      ranges.push([offset, offset + byteLength]);
    }
    const refitted = [...written.graph.initializers.values()].filter(({ name }) =>
      name.startsWith('cqil.refit.'),
    );
    expect(refitted.some(({ location }) => location === 'model.onnx.data')).toBe(true);
    ranges.sort(([a], [b]) => a - b);
    let end = 0;
    for (const [from, to] of ranges) {
      expect(from).toBe(Math.ceil(end / 4096) * 4096);
      end = to;
    }
    const { byteLength } = await readFile(path.join(root, 'model.onnx.data'));
    expect(byteLength).toBe(end);
  });

  it('writes what it would have written where nothing was refitted', async () => {
    const source = await locateModel(path.join(testdata, 'genai-int4/llama'));
    const same = await readModel(source.onnxFile);
    await rewriteModel(source, plan, path.join(dir, 'a'));
    await rewriteModel(source, plan, path.join(dir, 'b'), { recovered: same });
    for (const file of ['model.onnx', 'model.onnx.data']) {
      const [a, b] = await Promise.all(['a', 'b'].map((name) => readFile(path.join(dir, name, file))));
      expect(a!.equals(b!)).toBe(true);
    }
  });

  it('keeps nothing of one that fails its check', async () => {
    const source = await locateModel(path.join(testdata, 'optimum/llama'));
    const model = await recovered('optimum/llama/onnx/model.onnx');
    const seen: string[][] = [];
    const rewriting = rewriteModel(source, plan, path.join(dir, 'out'), {
      recovered: model,
      check: async (written) => {
        seen.push(refittedMaps(written).map(({ role }) => role));
        return 'logits off by 3';
      },
    });
    await expect(rewriting).rejects.toMatchObject({ code: 'REWRITE_BROKEN' });
    expect(seen).toEqual([['gate-up', 'gate-up', 'down', 'gate-up', 'gate-up', 'down']]);
    expect(await readdir(dir)).toEqual([]);
  });
});
