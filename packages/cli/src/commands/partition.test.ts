import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { cqil, testdata } from '../test/run.js';

let dir: string;
let model: string;
beforeEach(async () => {
  dir = await mkdtemp(path.join(os.tmpdir(), 'cqil-cli-partition-'));
  model = path.join(dir, 'model');
  const plan = path.join(dir, 'plan.json');
  const groups = [
    { layers: [1, 2], bypass: 1 },
    { layers: [3, 4], bypass: 0 },
  ];
  await writeFile(plan, JSON.stringify({ version: 1, layers: 6, groups }));
  const folder = testdata('genai-fp32/llama');
  const { code } = await cqil('rewrite', folder, '--plan', plan, '--out', model, '--no-verify');
  expect(code).toBe(0);
});
afterEach(() => rm(dir, { recursive: true, force: true }));

describe('cqil partition', () => {
  it('writes checked parts, and a timeline', async () => {
    const out = path.join(dir, 'out');
    const trace = path.join(dir, 'trace.json');
    const { code, stdout } = await cqil(
      'partition',
      '--devices',
      'cpu:0,cpu:1',
      model,
      ...['--out', out, '--trace', trace, '--json'],
    );
    expect(code).toBe(0);
    const found = JSON.parse(stdout);
    expect(found).toMatchObject({ root: out, parity: { ok: true } });
    expect(found.manifest.groups.map((group: { exchanges: number }) => group.exchanges)).toEqual([2, 1]);
    const { traceEvents } = JSON.parse(await readFile(trace, 'utf8'));
    const rows = new Set(traceEvents.map(({ tid }: { tid: number }) => tid));
    expect([...rows].sort()).toEqual([0, 1]);
  });

  it('says what it wrote, to people', async () => {
    const { code, stderr, stdout } = await cqil(
      'partition',
      model,
      ...['--devices', 'cpu:0', '--devices', 'cpu:1', '--trunk', 'first', '--out', path.join(dir, 'out')],
    );
    expect(code).toBe(0);
    const text = stdout + stderr;
    expect(text).toMatch(/\d+ parts on cpu:0, cpu:1/);
    expect(text).toContain('2 groups, 3 exchanges');
    expect(text).toMatch(/7 steps beside the whole graph, logits differ by \d/);
  });

  it.each([
    [['--devices', 'cpu:0'], 2, 'DEVICES_INVALID'],
    [['--devices', ','], 2, 'OPTION_INVALID'],
    [['--devices', 'cpu:0,tpu'], 2, 'DEVICES_INVALID'],
  ])('refuses %j', async (options, expected, name) => {
    const out = path.join(dir, 'out');
    const { code, stdout } = await cqil('partition', model, '--out', out, ...options, '--json');
    expect(code).toBe(expected);
    expect(JSON.parse(stdout).error.code).toBe(name);
  });

  it('refuses a model that was not rewritten', async () => {
    const folder = testdata('genai-fp32/llama');
    const { code, stdout } = await cqil(
      'partition',
      folder,
      ...['--devices', 'cpu:0,cpu:1', '--out', path.join(dir, 'out'), '--json'],
    );
    expect(code).not.toBe(0);
    expect(JSON.parse(stdout).error.code).toBe('MODEL_NOT_PLANNED');
  });
});
