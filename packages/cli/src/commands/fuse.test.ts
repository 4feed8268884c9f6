import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import type { FusePassReport } from '@cqil/planner';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { cqil, testdata } from '../test/run.js';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(path.join(os.tmpdir(), 'cqil-cli-fuse-'));
});
afterEach(() => rm(dir, { recursive: true, force: true }));

describe('cqil fuse', () => {
  it('writes a checked model and says what it did', async () => {
    const out = path.join(dir, 'out');
    const { code, stdout } = await cqil('fuse', testdata('optimum/llama'), '--out', out, '--json');
    expect(code).toBe(0);
    const found = JSON.parse(stdout);
    expect(found).toMatchObject({ root: out, nodes: { before: 1594, after: 97 }, checks: [{ ok: true }] });
    const attention = (found.passes as FusePassReport[]).find(({ name }) => name === 'attention');
    expect(attention).toEqual({ name: 'attention', applied: 6, refused: [] });
    const inspected = JSON.parse((await cqil('inspect', out, '--json')).stdout);
    expect(inspected.layers).toHaveLength(6);
  });

  it('explains itself to people', async () => {
    const out = path.join(dir, 'out');
    const folder = testdata('families/bloom/optimum');
    const { code, stderr } = await cqil('fuse', folder, '--out', out, '--bits', '8', '--explain');
    expect(code).toBe(0);
    expect(stderr).toMatch(/attention +0 +4 +attention → GroupQueryAttention/);
    expect(stderr).toMatch(/quantise +\d+ +\d+ +MatMul → MatMulNBits/);
    expect(stderr).toMatch(/Softmax "[^"]+" and 3 more: expected\s+a\s+causal\s+mask/);
    expect(stderr).toMatch(/checked: prefill: logits/);
  });

  it.each([
    [['--bits', '5'], '4, 8'],
    [['--padding', 'right'], 'left, none'],
    [['--without', 'everything'], 'attention'],
  ])('refuses %j', async (options, expected) => {
    const { code, stdout } = await cqil(
      'fuse',
      testdata('optimum/llama'),
      '--out',
      path.join(dir, 'out'),
      ...options,
      '--json',
    );
    expect(code).toBe(2);
    const { error } = JSON.parse(stdout);
    expect(error.code).toBe('OPTION_INVALID');
    expect(error.expected).toContain(expected);
  });
});

describe('cqil inspect --explain', () => {
  it('tells what would be fused, and what not and why', async () => {
    const { code, stdout } = await cqil('inspect', testdata('families/qwen3/optimum'), '--explain', '--json');
    expect(code).toBe(0);
    const { fuse, layers } = JSON.parse(stdout);
    expect(layers).toHaveLength(4);
    expect(fuse.nodes).toEqual({ before: 1190, after: 411 });
    const rotary = (fuse.passes as FusePassReport[]).find(({ name }) => name === 'rotary');
    expect(rotary?.applied).toBe(0);
    expect(rotary?.refused).toHaveLength(4);
    expect(rotary?.refused[0]?.found).toBe('a head size of 8, 8 of it rotated');
  });

  it('is said to people, too', async () => {
    const { code, stderr } = await cqil('inspect', testdata('optimum/llama'), '--explain');
    expect(code).toBe(0);
    expect(stderr).toContain('Fused, it would have 97 nodes in the place of 1594:');
    expect(stderr).toContain('Every place that a pass looks for was fused.');
  });
});
