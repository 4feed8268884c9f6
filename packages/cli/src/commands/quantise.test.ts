import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { modelFolder, textFiles } from '../../../planner/src/optimize/testing/fixtures.js';
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

  it('writes a model for integer engines, with the steps that text fixed', async () => {
    const source = await modelFolder('optimum/llama', path.join(dir, 'source'));
    const texts = await textFiles(path.join(dir, 'text'));
    const out = path.join(dir, 'out');
    const options = [
      '--tokens',
      '1024',
      '--evaluation-tokens',
      '1024',
      '--residual-steps',
      'one',
      '--rotate',
      'off',
    ];
    const { code, stderr } = await cqil(
      'quantise',
      source,
      '--format',
      'qdq',
      '--text',
      ...texts,
      ...options,
      '--out',
      out,
    );
    expect(stderr).toMatch(/q_proj\S+, \S+k_proj\S+, \S+v_proj\S+ +64 +128 +(8|16) +0\.\d+ %/);
    expect(stderr).toMatch(/12 sums of the residual stream in 16-bit integers; steps: \S+ \(1 to 12\)\n/);
    expect(stderr).toMatch(/the stream is not turned: left out as asked/);
    expect(stderr).toMatch(/prose +\d+/);
    expect(code).toBe(0);
  });

  it.each([
    [['--bits', '5'], '4, 8'],
    [['--accuracy-level', '3'], '1, 4'],
    [['--embedding-bits', '16'], '4, 8, float'],
    [['--finer', '2'], 'a number from 0 to 1'],
    [['--format', 'qdq', '--input-bits', '4'], 'auto, 8, 16'],
    [['--format', 'qdq', '--residual-bits', '32'], '8, 16'],
    [['--residual-steps', 'one'], /^options of this format: --bits/],
    [['--format', 'qdq', '--method', 'rtn'], /^options of this format: --input-bits/],
  ])('refuses %j', async (options, expected) => {
    const out = path.join(dir, 'out');
    const { code, stdout } = await cqil('quantise', llama, '--out', out, ...options, '--json');
    expect(code).toBe(2);
    const { error } = JSON.parse(stdout);
    expect(error.code).toBe('OPTION_INVALID');
    if (typeof expected === 'string') expect(error.expected).toBe(expected);
    else expect(error.expected).toMatch(expected);
  });
});
