import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Plan } from '@cqil/core';
import {
  analyze,
  linearMaps,
  locateModel,
  type MapRole,
  makeNode,
  readModel,
  replaceMatrices,
  rewriteModel,
} from '@cqil/planner';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { cqil, testdata } from '../test/run.js';
import type { ModelDescription } from './describe.js';
import { findRefits, renderRefits } from './refits.js';

const plan: Plan = { version: 1, layers: 6, groups: [{ layers: [1, 2], bypass: 1 }] };

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'cqil-refits-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** A fixture with some of its matrices replaced, grouped, on disk. */
async function recovered(name: string, roles: readonly MapRole[]): Promise<string> {
  const source = await locateModel(testdata(name));
  const model = await readModel(source.onnxFile);
  const maps = linearMaps(model, analyze(model)).maps.filter(
    ({ layer, role }) => (layer === 1 || layer === 2) && roles.includes(role),
  );
  const replacements = maps.map((map, seed) => ({
    map,
    weight: Float32Array.from(
      { length: map.inFeatures * map.outFeatures },
      (_, i) => Math.sin(i + seed) / map.inFeatures,
    ),
    bias: map.hasBias ? new Float32Array(map.outFeatures) : undefined,
  }));
  const out = path.join(folder, name);
  await rewriteModel(source, plan, out, { recovered: replaceMatrices(model, replacements) });
  return out;
}

describe('a recovered model', () => {
  it.each([
    ['optimum/llama', ['qkv', 'down'], '8 matrices in layers 1–2: qkv × 6, down × 2', 8],
    ['genai-int4/llama', ['gate-up'], '4 matrices in layers 1–2: gate-up × 4', 4],
    ['optimum/gpt2', ['o', 'down'], '4 matrices in layers 1–2: o × 2, down × 2', 4],
  ] as const)('%s is inspected and verified', async (name, roles, words, count) => {
    const out = await recovered(name, roles);
    const described = await cqil('inspect', out, '--json');
    expect(described.code).toBe(0);
    const found = JSON.parse(described.stdout) as ModelDescription;
    expect(found.plan?.groups).toEqual(plan.groups);
    expect(found.layerCount).toBe(6);
    expect([...new Set(found.refitted?.map(({ role }) => role))]).toEqual(roles);
    expect(found.refitted?.reduce((sum, { matrices }) => sum + matrices, 0)).toBe(count);

    const told = (await cqil('inspect', out)).stderr;
    expect(told).toMatch(/^plan +6 layers in 5 sequential steps/m);
    expect(told.split('\n').find((line) => line.startsWith('refitted'))).toContain(words);

    const verified = await cqil('verify', testdata(name), out);
    expect(verified.code).toBe(0);
    expect(verified.stderr).toMatch(
      new RegExp(`^recovery ok +${count} matrices of layers 1–2: .*, as declared$`, 'm'),
    );
    expect(verified.stderr).toMatch(
      new RegExp(`^weights ok +${count} matrices were refitted; all other weights`, 'm'),
    );
    expect(verified.stderr).toContain(`does what its plan says, with ${count} refitted matrices.`);
  });

  it('is told from one that was only rewritten', async () => {
    const source = await locateModel(testdata('optimum/gpt2'));
    const out = path.join(folder, 'plain');
    await rewriteModel(source, plan, out);
    expect(JSON.parse((await cqil('inspect', out, '--json')).stdout)).not.toHaveProperty('refitted');
    expect((await cqil('inspect', out)).stderr).not.toContain('refitted');
    const verified = await cqil('verify', testdata('optimum/gpt2'), out);
    expect(verified.stderr).toContain('does what its plan says.');
    expect(verified.stderr).not.toMatch(/recovery|refitted/);
  });
});

describe('findRefits', () => {
  const named = (name: string) => makeNode(name.replace(/^.*\/|_\d+$/g, ''), ['a'], ['b'], { name });

  it('counts products, not what stands around them', () => {
    const names = [
      '/cqil/refit/layer.12/down/Reshape',
      '/cqil/refit/layer.12/down/MatMulNBits',
      '/cqil/refit/layer.12/down/Add',
      '/cqil/refit/layer.3/qkv/MatMul',
      '/cqil/refit/layer.3/qkv/MatMul_1',
      '/cqil/group.0/sum/Add',
      '/model/layers.3/MatMul',
    ];
    const refits = findRefits(names.map(named));
    expect(refits).toEqual([
      { layer: 3, role: 'qkv', matrices: 2 },
      { layer: 12, role: 'down', matrices: 1 },
    ]);
    expect(renderRefits(refits)).toBe('3 matrices in layers 3–12: qkv × 2, down × 1');
    expect(renderRefits(refits.slice(1))).toBe('1 matrix in layer 12: down × 1');
  });
});
