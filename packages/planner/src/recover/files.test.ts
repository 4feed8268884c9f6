import { mkdtemp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { analyze } from '../anatomy/index.js';
import { type LinearMaps, linearMaps } from '../linear/index.js';
import { readModel } from '../onnx/index.js';
import { readGroupRecoveries, writeGroupRecovery } from './files.js';
import type { GroupRecovery } from './types.js';

const testdata = (file: string) => fileURLToPath(new URL(`../../../../testdata/${file}`, import.meta.url));

const header = { model: 'a1b2', plan: { version: 1, groups: [{ layers: [1, 2], bypass: 1 }] }, lambda: 0.1 };

async function mapsOf(file: string): Promise<LinearMaps> {
  const model = await readModel(testdata(file));
  return linearMaps(model, analyze(model));
}

/** Numbers that no other map has, some of them awkward. */
function recoveryOf({ maps }: LinearMaps, layers: readonly number[]): GroupRecovery {
  const replacements = maps
    .filter(({ layer, role }) => layers.includes(layer) && role !== 'o')
    .map((map, index) => ({
      map,
      weight: Float32Array.from(
        { length: map.inFeatures * map.outFeatures },
        (_, i) => (i % 7 === 0 ? -0 : 1 / (i + index + 3)) * (i % 5 === 0 ? 2 ** -140 : 1),
      ),
      bias: map.hasBias ? Float32Array.from({ length: map.outFeatures }, (_, i) => i - index) : undefined,
    }));
  return {
    layers,
    steps: [
      { layers, matrix: 'down', lambda: 1e-3 / 3, before: 0.1 + 0.2, after: Number.MIN_VALUE, kept: true },
      {
        layers: [layers[1]!],
        matrix: 'qkv',
        before: 0,
        after: 0,
        kept: false,
        reason: 'a norm stands behind',
      },
    ],
    replacements,
  };
}

let folder: string;
beforeEach(async () => {
  folder = path.join(await mkdtemp(path.join(os.tmpdir(), 'cqil-recovery-')), 'groups');
});
afterEach(() => rm(path.dirname(folder), { recursive: true, force: true }));

describe.each([
  'optimum/llama/onnx/model.onnx',
  'optimum/gpt2/onnx/model.onnx',
  'genai-int4/llama/model.onnx',
])('refits of %s', (file) => {
  it('come back as they were, in the order of their groups', async () => {
    const maps = await mapsOf(file);
    const groups = [recoveryOf(maps, [1, 2]), recoveryOf(maps, [3, 4])];
    // Another reading of the same model has other objects for the same maps.
    const again = await mapsOf(file);
    for (const index of [1, 0]) await writeGroupRecovery(folder, index, header, groups[index]!);
    const found = await readGroupRecoveries(folder, header, again);
    expect(found).toEqual(groups);
    const [first] = found[0]!.replacements;
    expect(again.maps).toContain(first!.map);
    expect(Object.is(first!.weight[0], -0)).toBe(true);
    expect((await readdir(folder)).sort()).toEqual(
      ['group-0.f32', 'group-0.json', 'group-1.f32', 'group-1.json'].sort(),
    );
  });
});

describe('refits on disk', () => {
  let maps: LinearMaps;
  beforeEach(async () => {
    maps = await mapsOf('optimum/llama/onnx/model.onnx');
    for (const [index, layers] of [
      [1, 2],
      [3, 4],
    ].entries()) {
      await writeGroupRecovery(folder, index, header, recoveryOf(maps, layers));
    }
  });

  const read = (under: unknown = header, known = maps) => readGroupRecoveries(folder, under, known);
  const layersRead = async () => (await read()).map(({ layers }) => layers);

  it('hold float32, little endian, one matrix after the other', async () => {
    const bytes = await readFile(path.join(folder, 'group-0.f32'));
    const { replacements } = recoveryOf(maps, [1, 2]);
    let at = 0;
    for (const { weight } of replacements) {
      for (const value of weight) {
        expect(Object.is(bytes.readFloatLE(at), value)).toBe(true);
        at += 4;
      }
    }
    expect(bytes).toHaveLength(at);
  });

  it('are none where there is no folder', async () => {
    expect(await readGroupRecoveries(path.join(folder, 'nowhere'), header, maps)).toEqual([]);
  });

  it('come back where nothing was kept', async () => {
    const nothing: GroupRecovery = { layers: [4, 5], steps: [], replacements: [] };
    await writeGroupRecovery(folder, 2, header, nothing);
    expect((await read()).at(-1)).toEqual(nothing);
  });

  it.each<[string, unknown]>([
    ['another model', { ...header, model: 'a1b3' }],
    ['one setting more', { ...header, roles: ['down'] }],
    ['one setting less', { model: header.model, plan: header.plan }],
    ['another number', { ...header, lambda: 0.1 + Number.EPSILON }],
    ['nothing', null],
  ])('are those of other work under a header with %s', async (_, other) => {
    expect(await read(other)).toEqual([]);
  });

  it('are the same work whatever the order of the header, and what JSON leaves out', async () => {
    const { lambda, model, plan } = header;
    expect(await read({ lambda, plan, model, absent: undefined })).toHaveLength(2);
  });

  it('are replaced when a group is written again', async () => {
    await writeGroupRecovery(folder, 0, { ...header, model: 'other' }, recoveryOf(maps, [1, 2]));
    expect(await layersRead()).toEqual([[3, 4]]);
    expect(await read({ ...header, model: 'other' })).toHaveLength(1);
  });

  it.each<[string, (name: string) => Promise<void>]>([
    ['data are cut short', (name) => truncate(`${name}.f32`, 1000)],
    ['data have bytes too many', async (name) => writeFile(`${name}.f32`, Buffer.alloc(4), { flag: 'a' })],
    ['data are not there', (name) => rm(`${name}.f32`)],
    ['JSON is not there', (name) => rm(`${name}.json`)],
    ['JSON is cut short', (name) => truncate(`${name}.json`, 400)],
    ['JSON is empty', (name) => truncate(`${name}.json`, 0)],
    [
      'JSON tells of other layers',
      async (name) => {
        const text = await readFile(`${name}.json`, 'utf8');
        await writeFile(`${name}.json`, text.replace('"layers":[1,2]', '"layers":[2,3]'));
      },
    ],
    [
      'data are those of an earlier run',
      async (name) => {
        const text = await readFile(`${name}.json`);
        const other = recoveryOf(maps, [1, 2]);
        other.replacements[0]!.weight[5]! += 1;
        await writeGroupRecovery(folder, 0, header, other);
        await writeFile(`${name}.json`, text);
      },
    ],
  ])('are left out where the %s', async (_, damage) => {
    await damage(path.join(folder, 'group-0'));
    expect(await layersRead()).toEqual([[3, 4]]);
  });

  it('are left out whichever byte is damaged, unless it tells the same as before', async () => {
    const groups = await read();
    const files = await Promise.all(
      ['f32', 'json'].map(async (end) => {
        const file = path.join(folder, `group-0.${end}`);
        return { file, bytes: await readFile(file) };
      }),
    );
    const places = fc.constantFrom(...files).chain((chosen) =>
      fc.record({
        chosen: fc.constant(chosen),
        // The newline at the end means nothing.
        at: fc.nat({ max: chosen.bytes.length - 2 }),
        bit: fc.nat({ max: 7 }),
      }),
    );
    const damaged = async ({ chosen, at, bit }: { chosen: (typeof files)[0]; at: number; bit: number }) => {
      const copy = Buffer.from(chosen.bytes);
      copy[at]! ^= 1 << bit;
      await writeFile(chosen.file, copy);
      const found = await read();
      await writeFile(chosen.file, chosen.bytes);
      // Some numbers can be written in two ways: 5e-324 and 5E-324.
      if (found.length === 2) expect(found[0]).toEqual(groups[0]);
      expect(found.at(-1)?.layers).toEqual([3, 4]);
      return found.length;
    };
    const lengths: number[] = [];
    const property = fc.asyncProperty(places, async (place) => void lengths.push(await damaged(place)));
    await fc.assert(property, { numRuns: 60 });
    expect(lengths.filter((length) => length === 1).length).toBeGreaterThan(50);
    expect(await read()).toEqual(groups);
  });

  it('are left out where the model has no such maps', async () => {
    const other = await mapsOf('optimum/gpt2/onnx/model.onnx');
    expect(await read(header, other)).toEqual([]);
    const larger = maps.maps.map((map) =>
      map.layer === 1 ? { ...map, inFeatures: map.inFeatures + 1 } : map,
    );
    const found = await read(header, { ...maps, maps: larger });
    expect(found.map(({ layers }) => layers)).toEqual([[3, 4]]);
  });

  it('leave nothing half written behind, and say so', async () => {
    await writeFile(path.join(path.dirname(folder), 'file'), '');
    const writing = writeGroupRecovery(
      path.join(path.dirname(folder), 'file'),
      0,
      header,
      recoveryOf(maps, [1, 2]),
    );
    await expect(writing).rejects.toMatchObject({ code: 'WRITE_FAILED' });
    const before = (await readdir(folder)).sort();
    const circle: Record<string, unknown> = {};
    circle.circle = circle;
    await expect(writeGroupRecovery(folder, 0, circle, recoveryOf(maps, [1, 2]))).rejects.toThrow();
    expect((await readdir(folder)).sort()).toEqual(before);
  });
});
