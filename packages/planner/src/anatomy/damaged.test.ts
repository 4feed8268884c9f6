import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { CqilError } from '@cqil/core';
import fc from 'fast-check';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { readModel } from '../onnx/index.js';
import { rewriteBranches } from '../rewrite/index.js';
import { analyze } from './index.js';

const fixture = path.resolve(import.meta.dirname, '../../../../testdata/genai-int4/llama');

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(path.join(os.tmpdir(), 'cqil-anatomy-'));
  await writeFile(path.join(dir, 'model.onnx.data'), await readFile(path.join(fixture, 'model.onnx.data')));
});
afterEach(() => rm(dir, { recursive: true, force: true }));

it('a graph with damaged edges gives a coded error or an anatomy, and never hangs', async () => {
  const whole = await readFile(path.join(fixture, 'model.onnx'));
  const file = path.join(dir, 'model.onnx');
  const plan = { version: 1, layers: 6, groups: [{ layers: [1, 2, 3], bypass: 'full' }] } as const;
  let understood = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.integer({ min: 0, max: whole.length - 1 }), fc.integer({ min: 0, max: 7 })), {
        minLength: 1,
        maxLength: 30,
      }),
      async (flips) => {
        const bytes = Uint8Array.from(whole);
        for (const [at, bit] of flips) bytes[at] = (bytes[at] as number) ^ (1 << bit);
        await writeFile(file, bytes);
        try {
          const model = await readModel(file);
          analyze(model);
          understood++;
          rewriteBranches(model, plan);
        } catch (error) {
          if (!(error instanceof CqilError)) throw error;
        }
      },
    ),
    { numRuns: 300 },
  );
  expect(understood).toBeGreaterThan(0);
});

it('names that are exchanged (cycles, missing values) give a coded error or an anatomy', async () => {
  const source = await readModel(path.join(fixture, 'model.onnx'));
  const count = source.graph.nodes.length;
  await fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(count - 1), fc.nat(count - 1), fc.nat(3)), { minLength: 1, maxLength: 4 }),
      (swaps) => {
        const model = source.clone();
        for (const [from, to, input] of swaps) {
          const reader = model.graph.nodes[from];
          const value = model.graph.nodes[to]?.output[0];
          if (reader === undefined || value === undefined || input >= reader.input.length) continue;
          reader.input[input] = value;
        }
        try {
          analyze(model);
        } catch (error) {
          if (!(error instanceof CqilError)) throw error;
        }
      },
    ),
    { numRuns: 300 },
  );
});
