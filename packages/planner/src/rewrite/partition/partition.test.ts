import { cp, mkdtemp, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { type Bypass, type Plan, parsePlan } from '@cqil/core';
import { DecoderSession, generate, openPartitioned, PARTITION_FILE } from '@cqil/runtime-gpu';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { locateModel } from '../../source/index.js';
import { rewriteModel } from '../rewrite-model.js';
import { partitionModel } from './index.js';

const testdata = path.resolve(import.meta.dirname, '../../../../../testdata');
const devices = ['cpu:0', 'cpu:1'];

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(path.join(os.tmpdir(), 'cqil-partition-'));
});
afterAll(() => rm(dir, { recursive: true }));

function planOf(groups: readonly (readonly number[])[], bypass: Bypass): Plan {
  return parsePlan({ version: 1, layers: 6, groups: groups.map((layers) => ({ layers, bypass })) });
}

async function planned(name: string, groups: readonly (readonly number[])[], bypass: Bypass) {
  const source = await locateModel(path.join(testdata, name));
  const out = path.join(dir, `${name.replaceAll('/', '-')}-${groups.join('_')}-${bypass}`);
  await rewriteModel(source, planOf(groups, bypass), out, { force: true });
  return locateModel(out);
}

const PAIRS = [
  [1, 2],
  [3, 4],
] as const;

describe.each([
  ['genai-fp32/llama', PAIRS],
  [
    'genai-fp32/qwen2',
    [
      [0, 1],
      [4, 5],
    ],
  ],
  ['genai-int4/llama', [[1, 2, 3]]],
  ['optimum/llama', PAIRS],
  ['optimum/gpt2', PAIRS],
] as const)('%s', (name, groups) => {
  it.each([0, 1, 'full'] as const)('in parts, bypass %s, is the whole graph', async (bypass) => {
    const source = await planned(name, groups, bypass);
    const out = path.join(dir, `${path.basename(source.root)}-parts`);
    const { manifest, parity } = await partitionModel(source, out, { devices });
    expect(parity).toMatchObject({ ok: true, steps: 7 });
    expect(parity!.largest).toBeLessThan(1e-4);
    expect(manifest.groups.map(({ exchanges }) => exchanges)).toEqual(
      groups.map(() => (bypass === 0 ? 1 : 2)),
    );
  });
});

describe('a partition', () => {
  it('puts branch k on device k, and the trunk on all', async () => {
    const source = await planned('genai-fp32/llama', PAIRS, 0);
    const { manifest } = await partitionModel(source, path.join(dir, 'placed'), { devices });
    expect(manifest.parts.map(({ name, devices: on }) => [name, on.join()])).toEqual([
      ['trunk.0', 'cpu:0,cpu:1'],
      ['group.0.branch.0', 'cpu:0'],
      ['group.0.branch.1', 'cpu:1'],
      ['group.1.branch.0', 'cpu:0'],
      ['group.1.branch.1', 'cpu:1'],
      ['trunk.3', 'cpu:0,cpu:1'],
    ]);
    const caches = (part: string) =>
      manifest.parts
        .find(({ name }) => name === part)!
        .outputs.filter((output) => output.startsWith('present'));
    expect(caches('group.1.branch.1')).toEqual(['present.4.key', 'present.4.value']);
    expect(caches('trunk.3')).toEqual(['present.5.key', 'present.5.value']);
  });

  it('cuts a branch in two only where a branch reads another', async () => {
    const names = async (bypass: Bypass) => {
      const source = await planned('genai-fp32/llama', [[1, 2, 3]], bypass);
      const { manifest } = await partitionModel(source, path.join(dir, `cut-${bypass}`), {
        devices: ['cpu:0', 'cpu:1', 'cpu:2'],
        check: false,
      });
      return manifest.parts.map(({ name }) => name).filter((name) => name.startsWith('group'));
    };
    expect(await names(0)).toHaveLength(3);
    const halves = [0, 1, 2].map((k) => `group.0.branch.${k}.attention`);
    const ffns = [0, 1, 2].map((k) => `group.0.branch.${k}.ffn`);
    expect(await names(1)).toEqual([...halves, ...ffns]);
    expect(await names('full')).toEqual([...halves, ...ffns]);
  });

  it('goes from group to group without a way through the trunk', async () => {
    const source = await planned('genai-fp32/llama', PAIRS, 0);
    const { manifest } = await partitionModel(source, path.join(dir, 'direct'), { devices, check: false });
    const reads = (part: string) =>
      manifest.parts.find(({ name }) => name === part)!.inputs.map(({ from }) => from);
    expect(new Set(reads('group.1.branch.1').filter((from) => from?.startsWith('group')))).toEqual(
      new Set(['group.0.branch.0', 'group.0.branch.1']),
    );
    // The stream itself comes from the trunk once; the second group adds up its own.
    expect(new Set(reads('trunk.3'))).toContain('group.1.branch.0');
  });

  it('has the weights of the model once, in the model', async () => {
    const source = await planned('genai-fp32/llama', PAIRS, 1);
    const out = path.join(dir, 'light');
    const { manifest } = await partitionModel(source, out, { devices, check: false });
    const files = await readdir(path.join(out, 'parts'));
    const sizes = await Promise.all(
      files.map(async (file) => (await stat(path.join(out, 'parts', file))).size),
    );
    const data = await stat(path.join(source.root, 'model.onnx.data'));
    expect(manifest.weights.files).toEqual([{ path: 'model.onnx.data', bytes: data.size }]);
    expect(path.resolve(out, manifest.weights.folder)).toBe(source.root);
    expect(sizes.reduce((sum, size) => sum + size, 0)).toBeLessThan(data.size / 4);
  });

  it('generates what the whole graph generates, on threads of its own', async () => {
    for (const bypass of [0, 1, 'full'] as const) {
      const source = await planned('genai-fp32/llama', PAIRS, bypass);
      const out = path.join(dir, `generates-${bypass}`);
      await partitionModel(source, out, { devices, check: false });
      await using whole = await DecoderSession.open(source.onnxFile, { threads: 1 });
      await using parted = await openPartitioned(out, { pin: false });
      const request = { promptIds: [1, 5, 9, 2], maxTokens: 24 };
      expect((await generate(parted, request)).ids).toEqual((await generate(whole, request)).ids);
    }
  });

  it('is the same each time it is written', async () => {
    const source = await planned('genai-fp32/llama', PAIRS, 1);
    const read = async (out: string) => {
      await partitionModel(source, out, { devices, check: false });
      const files = (await readdir(path.join(out, 'parts'))).sort();
      return Promise.all(
        [PARTITION_FILE, ...files.map((f) => `parts/${f}`)].map((f) => readFile(path.join(out, f), 'hex')),
      );
    };
    expect(await read(path.join(dir, 'once'))).toEqual(await read(path.join(dir, 'twice')));
  });
});

describe('what cannot be cut', () => {
  it.each([
    [[], 'none'],
    [['cpu:0'], 'cpu:0'],
    [['cpu:0', 'cpu:0'], 'cpu:0'],
    [['cpu:0', 'cuda:0'], 'cuda:0'],
  ])('devices %j', async (given, found) => {
    const source = await planned('genai-fp32/llama', PAIRS, 0);
    await expect(partitionModel(source, path.join(dir, 'no'), { devices: given })).rejects.toMatchObject({
      code: 'DEVICES_INVALID',
      found,
    });
  });

  it('a model without a plan', async () => {
    const source = await locateModel(path.join(testdata, 'genai-fp32/llama'));
    const out = path.join(dir, 'unplanned');
    await expect(partitionModel(source, out, { devices })).rejects.toMatchObject({
      code: 'MODEL_NOT_PLANNED',
    });
    await expect(stat(out)).rejects.toThrow();
  });

  it('a folder that is not empty, but a partition by force', async () => {
    const source = await planned('genai-fp32/llama', PAIRS, 0);
    const out = path.join(dir, 'full');
    await partitionModel(source, out, { devices, check: false });
    await expect(partitionModel(source, out, { devices })).rejects.toMatchObject({
      code: 'OUTPUT_NOT_EMPTY',
    });
    await partitionModel(source, out, { devices, check: false, force: true });
  });
});

describe('what is opened', () => {
  it.each([
    ['no folder', 'PARTITION_NOT_FOUND', (out: string) => rm(out, { recursive: true })],
    ['no JSON', 'PARTITION_INVALID', (out: string) => writeFile(path.join(out, PARTITION_FILE), '{')],
    [
      'another document',
      'PARTITION_INVALID',
      (out: string) => writeFile(path.join(out, PARTITION_FILE), '{"version":1}'),
    ],
    ['a missing part', 'PARTITION_INVALID', (out: string) => rm(path.join(out, 'parts/trunk.0.onnx'))],
    [
      'a part cut short',
      'MODEL_LOAD_FAILED',
      (out: string) => truncate(path.join(out, 'parts/trunk.0.onnx'), 100),
    ],
    [
      'another part under its name',
      'PARTITION_INVALID',
      (out: string) => cp(path.join(out, 'parts/trunk.3.onnx'), path.join(out, 'parts/trunk.0.onnx')),
    ],
  ])('%s', async (_, code, damage) => {
    const source = await planned('genai-fp32/llama', PAIRS, 0);
    const out = path.join(dir, 'damaged');
    await partitionModel(source, out, { devices, check: false, force: true });
    await damage(out);
    await expect(openPartitioned(out)).rejects.toMatchObject({ code });
    await rm(out, { recursive: true, force: true });
  });

  it('weights that changed', async () => {
    const source = await planned('genai-fp32/llama', [[2, 3]], 0);
    const out = path.join(dir, 'stale');
    await partitionModel(source, out, { devices, check: false });
    await truncate(path.join(source.root, 'model.onnx.data'), 1000);
    await expect(openPartitioned(out)).rejects.toMatchObject({ code: 'PARTITION_STALE' });
  });
});
