import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseProfile } from '@cqil/core';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { cqil, testdata } from '../test/run.js';

let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cqil-profile-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

it('measures a profile that cqil simulate takes', async () => {
  const out = join(folder, 'cpu.json');
  const model = testdata('genai-int4/llama');
  const measured = await cqil('profile', model, '--threads', '1', '--quick', '--out', out, '--json');
  expect(measured.code).toBe(0);
  const profile = parseProfile(await readFile(out, 'utf8'));
  expect(profile).toEqual(JSON.parse(measured.stdout));
  expect(
    profile.devices[0]!.products!.map(({ m, k, n, weightBits }) => [m, k, n, weightBits]),
  ).toContainEqual([1, 160, 64, 5]);
  const simulated = await cqil('simulate', model, '--group-size', '2', '--profile', out, '--json');
  expect(simulated.code).toBe(0);
  const { rows } = JSON.parse(simulated.stdout) as { rows: { decode: { seconds: number } }[] };
  expect(rows[0]!.decode.seconds).toBeGreaterThan(0);
});
