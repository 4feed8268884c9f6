import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { cqil, testdata } from '../test/run.js';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(path.join(os.tmpdir(), 'cqil-cli-quantise-'));
});
afterEach(() => rm(dir, { recursive: true, force: true }));

const llama = testdata('optimum/llama');

describe('cqil quantise', () => {
  it('writes a model that is found by its new dtype', async () => {
    const out = path.join(dir, 'out');
    const { code, stdout } = await cqil('quantise', llama, '--method', 'rtn', '--out', out, '--json');
    expect(code).toBe(0);
    const found = JSON.parse(stdout);
    expect(found).toMatchObject({ root: out, bits: 4, method: 'rtn', left: [] });
    expect(found.matrices).toHaveLength(44);
    const inspected = JSON.parse((await cqil('inspect', out, '--json')).stdout);
    expect(inspected.layers).toHaveLength(6);
  });

  it('says to people what each matrix got', async () => {
    const out = path.join(dir, 'out');
    const { code, stderr } = await cqil('quantise', llama, '--bits', '8', '--method', 'rtn', '--out', out);
    expect(code).toBe(0);
    expect(stderr).toMatch(/down_proj\S+ +160 +64 +8 +0\.\d+ %/);
    expect(stderr).toMatch(/\(embedding\) +64 +512 +8/);
    expect(stderr).toMatch(/MB of weights, now/);
  });

  it.each([
    [['--bits', '5'], '4, 8'],
    [['--accuracy-level', '3'], '1, 4'],
    [['--embedding-bits', '16'], '4, 8, float'],
    [['--finer', '2'], 'a number from 0 to 1'],
  ])('refuses %j', async (options, expected) => {
    const out = path.join(dir, 'out');
    const { code, stdout } = await cqil('quantise', llama, '--out', out, ...options, '--json');
    expect(code).toBe(2);
    const { error } = JSON.parse(stdout);
    expect(error).toMatchObject({ code: 'OPTION_INVALID', expected });
  });
});
