import { copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { datasheetProfile } from '@cqil/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Comparison } from '../simulate/compare.js';
import { cqil, testdata } from '../test/run.js';

let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cqil-simulate-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const PAPER = ['llama-7b', '--group-size', '2', '--start', '12', '--end', '30'];

async function compared(...argv: string[]): Promise<Comparison> {
  const { code, stdout } = await cqil('simulate', ...argv, '--json');
  expect(code).toBe(0);
  return JSON.parse(stdout) as Comparison;
}

async function refused(...argv: string[]): Promise<{ code: string; message: string }> {
  const { code, stdout } = await cqil('simulate', ...argv, '--json');
  expect(code).toBe(2);
  return (JSON.parse(stdout) as { error: { code: string; message: string } }).error;
}

describe('cqil simulate', () => {
  it('compares the ways to run a model', async () => {
    const { rows, steps, machine, best } = await compared(...PAPER, '--devices', 'a100-nvlink:4');
    expect(steps).toBe(23);
    expect(machine.devices).toBe(4);
    expect(rows.map(({ name }) => name)).toEqual([
      'unplanned, one device',
      'CQIL, one device',
      'CQIL, 2 devices',
      'tensor parallel, 4 devices',
      'CQIL + tensor parallel, 4 devices',
    ]);
    expect(rows[0]!.decode.change).toBe(0);
    expect(rows[4]!.placement).toEqual({
      teams: [
        ['0', '1'],
        ['2', '3'],
      ],
      ungrouped: 'split',
    });
    for (const { decode, prefill } of rows) {
      for (const { seconds, parts, contention } of [decode, prefill]) {
        const sum = Object.values(parts).reduce((total, one) => total + one, 0);
        expect(sum + contention).toBeCloseTo(seconds, 9);
      }
    }
    expect(best.seconds).toBeLessThanOrEqual(Math.min(...rows.map(({ decode }) => decode.seconds)) + 1e-12);
  });

  it('takes what the unplanned model was measured to take', async () => {
    const { rows } = await compared(...PAPER, '--runtime', 'eager', '--unplanned-ms', '39.2');
    expect(rows[0]!.decode.seconds).toBeCloseTo(0.0392, 9);
    expect(rows.find(({ name }) => name === 'CQIL, 2 devices')!.decode.change).toBeLessThan(-0.2);
  });

  it('prints a table with sources', async () => {
    const { code, stderr, stdout } = await cqil('simulate', ...PAPER);
    expect(code).toBe(0);
    const text = stdout + stderr;
    expect(text).toMatch(/CQIL, 2 devices +\d+\.\d+ ms +−\d+\.\d %/);
    expect(text).toContain('Simulated, not measured');
    expect(text).toContain('NVIDIA A100 datasheet');
  });

  it('writes a trace and a page, the same for the same', async () => {
    const [trace, html, again] = ['trace.json', 'page.html', 'again.html'].map((name) => join(folder, name));
    const { code } = await cqil('simulate', ...PAPER, '--trace', trace!, '--html', html!);
    expect(code).toBe(0);
    const { traceEvents } = JSON.parse(await readFile(trace!, 'utf8')) as {
      traceEvents: { ph: string; name: string; pid: number }[];
    };
    const branches = (layer: number) =>
      new Set(traceEvents.filter(({ name }) => name.startsWith(`layer ${layer} ffn`)).map(({ pid }) => pid));
    expect([branches(12), branches(13)]).toEqual([new Set([0]), new Set([1])]);
    const page = await readFile(html!, 'utf8');
    expect(page).toContain('CQIL, 2 devices');
    expect(page).not.toMatch(/(src|href)=/);
    await cqil('simulate', ...PAPER, '--html', again!);
    expect(await readFile(again!, 'utf8')).toBe(page);
  });

  it('reads plans and profiles from files', async () => {
    const plan = join(folder, 'plan.json');
    const profile = join(folder, 'profile.json');
    await writeFile(
      plan,
      JSON.stringify({ version: 1, layers: 32, groups: [{ layers: [4, 5], bypass: 1 }] }),
    );
    const slow = datasheetProfile('a100-pcie', 2);
    slow.name = 'a <slow> machine';
    slow.devices[1]!.memoryBytesPerSecond /= 10;
    await writeFile(profile, JSON.stringify(slow));
    const html = join(folder, 'slow.html');
    const found = await compared('llama-7b', '--plan', plan, '--profile', profile, '--html', html);
    expect(found.machine.name).toBe('a <slow> machine');
    expect(found.steps).toBe(31);
    // Both branches stay on the device that is ten times as fast, so nothing is gained and little lost.
    expect(found.rows.find(({ name }) => name === 'CQIL, 2 devices')!.decode.change).toBeCloseTo(0, 1);
    expect(await readFile(html, 'utf8')).toContain('a &lt;slow&gt; machine');
  });

  it('says what does not fit', async () => {
    const { stdout, stderr } = await cqil(
      'simulate',
      'llama-33b',
      '--group-size',
      '2',
      '--devices',
      'rtx4090-pcie:2',
    );
    expect(stdout + stderr).toContain('does not fit into memory: unplanned, one device (device 0)');
  });
});

describe("a folder's shape", () => {
  it.each([
    ['optimum/llama', 32],
    ['genai-int4/llama', 4.5],
  ])('of %s comes from its config and graph: %d bits', async (path, least) => {
    const { model } = await compared(testdata(path), '--group-size', '2');
    expect(model).toMatchObject({ layers: 6, hidden: 64, heads: 4, kvHeads: 2, headDim: 16, ffn: 160 });
    expect(model.weightBits).toBeGreaterThanOrEqual(least * 0.99);
    // Scales may be float32, and zero points come on top.
    expect(model.weightBits).toBeLessThan(least * 1.2);
    expect(model.kernels.attention).toBeGreaterThanOrEqual(0);
  });

  it('is asked for where there is no config', async () => {
    for (const name of ['model.onnx', 'model.onnx.data']) {
      await copyFile(testdata(`genai-int4/llama/${name}`), join(folder, name));
    }
    const { code } = await refused(join(folder, 'model.onnx'), '--group-size', '2');
    expect(code).toBe('SHAPE_CONFIG');
  });
});

describe('what makes no simulation is refused', () => {
  it.each([
    [['llama-7b'], 'PLAN_OPTIONS'],
    [[...PAPER, '--plan', 'x.json'], 'PLAN_OPTIONS'],
    [[...PAPER, '--devices', 'a100-nvlink:x'], 'OPTION_INVALID'],
    [[...PAPER, '--devices', 'a100-nvlink:99'], 'DATASHEET_COUNT'],
    [[...PAPER, '--devices', 'abacus'], 'DATASHEET_UNKNOWN'],
    [[...PAPER, '--unplanned-ms', '-3'], 'OPTION_INVALID'],
    [[...PAPER, '--unplanned-ms', '1'], 'CALIBRATION_TOO_FAST'],
  ])('%j: %s', async (argv, code) => {
    expect((await refused(...argv)).code).toBe(code);
  });
});
