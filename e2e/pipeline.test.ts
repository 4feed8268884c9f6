import { cp, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { cqil, testdata } from './run.js';

let dir: string;
let at: (name: string) => string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'cqil-e2e-'));
  at = (name) => join(dir, name);
});
afterEach(() => rm(dir, { recursive: true, force: true }));

const GEOMETRY = ['--group-size', '2', '--bypass', '1', '--start', '1', '--end', '5'];

async function well(...args: string[]): Promise<unknown> {
  const { code, stdout, stderr } = await cqil([...args, '--json']);
  expect(code, stderr).toBe(0);
  return JSON.parse(stdout);
}

async function refused(code: string, ...args: string[]): Promise<void> {
  const before = await readdir(dir);
  const { code: exit, stdout, stderr } = await cqil([...args, '--json']);
  expect(exit, stderr).toBe(2);
  expect(JSON.parse(stdout)).toMatchObject({ error: { code } });
  expect(stderr).not.toMatch(/INTERNAL|^\s+at /m);
  expect(await readdir(dir)).toEqual(before);
}

describe('plan, rewrite and verify', () => {
  it.each([
    ['optimum/llama', 'onnx/model.onnx', []],
    ['optimum/llama', 'onnx/model_quantized.onnx', ['--dtype', 'q8']],
    ['optimum/gpt2', 'onnx/model.onnx', []],
    ['genai-fp32/qwen2', 'model.onnx', []],
    ['genai-int4/llama', 'model.onnx', []],
  ])('take %s (%s) the whole way', async (fixture, graph, dtype) => {
    const model = testdata(fixture);
    const plan = await well('plan', model, ...dtype, ...GEOMETRY, '--out', at('plan.json'));
    expect(plan).toMatchObject({
      version: 1,
      layers: 6,
      groups: [
        { layers: [1, 2], bypass: 1 },
        { layers: [3, 4], bypass: 1 },
      ],
    });
    await well('rewrite', model, ...dtype, '--plan', at('plan.json'), '--out', at('out'));
    expect(await readdir(at('out'), { recursive: true })).toEqual(
      expect.arrayContaining([graph, 'cqil.plan.json']),
    );
    expect(JSON.parse(await readFile(join(at('out'), 'cqil.plan.json'), 'utf8'))).toMatchObject({
      groups: { length: 2 },
    });
    // The original is named without its dtype: verify takes the one that was rewritten.
    expect(await well('verify', model, at('out'))).toMatchObject({ ok: true });
    expect(await well('inspect', at('out'))).toMatchObject({
      layerCount: 6,
      plan: { groups: { length: 2 } },
    });
    await refused('MODEL_ALREADY_PLANNED', 'plan', at('out'), ...GEOMETRY, '--out', at('again.json'));
    expect(await readdir(dir)).toEqual(['out', 'plan.json']);
  });

  it("reads the authors' configuration", async () => {
    await writeFile(at('config.json'), '{"cqil_layers": [[0], [1, 2, 3], [4], [5]], "d": 2}');
    const plan = await well(
      'plan',
      testdata('optimum/llama'),
      '--from-config',
      at('config.json'),
      '--out',
      at('plan.json'),
    );
    expect(plan).toMatchObject({ groups: [{ layers: [1, 2, 3] }] });
  });

  it('give the same bytes for the same input', async () => {
    await well('plan', testdata('optimum/llama'), ...GEOMETRY, '--out', at('plan.json'));
    for (const out of ['a', 'b']) {
      await well(
        'rewrite',
        testdata('optimum/llama'),
        '--plan',
        at('plan.json'),
        '--out',
        at(out),
        '--no-verify',
      );
    }
    const graph = (out: string) => readFile(join(at(out), 'onnx/model.onnx'));
    expect((await graph('a')).equals(await graph('b'))).toBe(true);
  });

  it('work on a hub cache, which is made of links', async () => {
    const blobs = at('models--a--b/blobs');
    const snapshot = at('models--a--b/snapshots/rev');
    await mkdir(blobs, { recursive: true });
    await mkdir(snapshot, { recursive: true });
    for (const [i, name] of (await readdir(testdata('genai-fp32/llama'))).entries()) {
      await cp(join(testdata('genai-fp32/llama'), name), join(blobs, `blob${i}`));
      await symlink(`../../blobs/blob${i}`, join(snapshot, name));
    }
    await well('plan', snapshot, ...GEOMETRY, '--out', at('plan.json'));
    await well('rewrite', snapshot, '--plan', at('plan.json'), '--out', at('out'));
    expect(await well('verify', snapshot, at('out'))).toMatchObject({ ok: true });
  });

  it('end with 1 when the rewritten model is not what the plan says', async () => {
    const model = testdata('optimum/llama');
    await well('plan', model, ...GEOMETRY, '--out', at('plan.json'));
    await well('plan', model, '--group-size', '3', '--out', at('other.json'));
    await well('rewrite', model, '--plan', at('plan.json'), '--out', at('out'));
    const { code, stdout } = await cqil(['verify', model, at('out'), '--plan', at('other.json'), '--json']);
    expect(code).toBe(1);
    expect(JSON.parse(stdout)).toMatchObject({ ok: false });
    const people = await cqil(['verify', model, at('out'), '--plan', at('other.json')]);
    expect(people.code).toBe(1);
    expect(people.stderr).toMatch(/FAILED/);
  });

  it('end with 1 when the rewritten folder holds another model', async () => {
    await well('plan', testdata('optimum/llama'), ...GEOMETRY, '--out', at('plan.json'));
    await well('rewrite', testdata('optimum/llama'), '--plan', at('plan.json'), '--out', at('out'));
    const { code } = await cqil(['verify', testdata('optimum/qwen2'), at('out')]);
    expect(code).toBe(1);
  });
});

describe('what cannot be planned or rewritten', () => {
  const model = testdata('optimum/llama');

  it('is told before anything is written', async () => {
    const plan = (document: unknown) => writeFile(at('plan.json'), JSON.stringify(document));
    const rewrite = ['rewrite', model, '--plan', at('plan.json'), '--out', at('out')];
    const group = (...layers: number[]) => ({ layers, bypass: 0 });
    await plan({ version: 1, layers: 30, groups: [] });
    await refused('PLAN_LAYER_COUNT', ...rewrite);
    await plan({ version: 1, layers: 6, groups: [group(1, 2), group(2, 3)] });
    await refused('PLAN_OVERLAP', ...rewrite);
    await plan({ version: 1, layers: 6, groups: [group(1, 3)] });
    await refused('PLAN_NOT_NEIGHBOURS', ...rewrite);
    await plan({ version: 1, layers: 6, groups: [group(5, 6)] });
    await refused('PLAN_OUT_OF_RANGE', ...rewrite);
    await plan({ version: 1, layers: 6, groups: [group(1)] });
    await refused('PLAN_GROUP_TOO_SMALL', ...rewrite);
    await plan({ version: 9, layers: 6, groups: [] });
    await refused('PLAN_VERSION', ...rewrite);
    await writeFile(at('plan.json'), 'no JSON');
    await refused('PLAN_NOT_JSON', ...rewrite);
    await rm(at('plan.json'));
    await refused('FILE_UNREADABLE', ...rewrite);
  });

  it('is refused by its options', async () => {
    const out = ['--out', at('plan.json')];
    await refused('PLAN_OPTIONS', 'plan', model, ...out);
    await refused('PLAN_OPTIONS', 'plan', model, '--bypass', '1', ...out);
    await refused('PLAN_OPTIONS', 'plan', model, '--group-size', '2', '--from-config', 'x.json', ...out);
    await refused('PLAN_OPTIONS', 'plan', model, '--probe', 'probe.json', ...out);
    await refused('OPTION_INVALID', 'plan', model, '--group-size', 'two', ...out);
    await refused('OPTION_INVALID', 'plan', model, '--group-size', '2', '--bypass', 'half', ...out);
    await refused('OPTION_INVALID', 'plan', model, '--probe', 'x', '--threshold', '3', ...out);
    await refused(
      'PLAN_PARAMETERS',
      'plan',
      model,
      '--group-size',
      '2',
      '--start',
      '4',
      '--end',
      '2',
      ...out,
    );
    await refused('FILE_UNREADABLE', 'plan', model, '--from-config', at('nowhere.json'), ...out);
    await refused(
      'PROBE_NOT_FOUND',
      'plan',
      model,
      '--probe',
      at('nowhere.json'),
      '--threshold',
      '0.9',
      ...out,
    );
  });

  it('is refused when the output folder is taken, until it may be replaced', async () => {
    await well('plan', model, ...GEOMETRY, '--out', at('plan.json'));
    await mkdir(at('out'));
    await writeFile(join(at('out'), 'precious.txt'), 'mine');
    const rewrite = ['rewrite', model, '--plan', at('plan.json'), '--no-verify', '--out'];
    await refused('OUTPUT_NOT_EMPTY', ...rewrite, at('out'));
    await refused('OUTPUT_NOT_EMPTY', ...rewrite, at('out'), '--force');
    expect(await readFile(join(at('out'), 'precious.txt'), 'utf8')).toBe('mine');
    await well(...rewrite, at('new'));
    await refused('OUTPUT_NOT_EMPTY', ...rewrite, at('new'));
    await well(...rewrite, at('new'), '--force');
  });

  it('is an encoder, an image model, or damaged', async () => {
    await mkdir(at('t5/onnx'), { recursive: true });
    await writeFile(at('t5/config.json'), '{"is_encoder_decoder": true}');
    await cp(join(model, 'onnx/model.onnx'), at('t5/onnx/encoder_model.onnx'));
    await refused('MODEL_NOT_DECODER', 'plan', at('t5'), ...GEOMETRY, '--out', at('plan.json'));
    const bytes = await readFile(join(model, 'onnx/model.onnx'));
    await writeFile(at('cut.onnx'), bytes.subarray(0, bytes.length / 2));
    const { code, stderr } = await cqil(['plan', at('cut.onnx'), ...GEOMETRY, '--out', at('plan.json')]);
    expect(code).toBe(2);
    expect(stderr).toMatch(/^(ONNX|TENSOR_DATA|EXTERNAL_DATA)_[A-Z_]+: /m);
    expect(await readdir(dir)).toEqual(['cut.onnx', 't5']);
  });
});
