import { mkdtemp, readFile, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { type Bypass, type Plan, parsePlan } from '@cqil/core';
import { DecoderSession } from '@cqil/runtime-gpu';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { testModel } from '../../../../tools/src/test-model.js';
import { locateModel } from '../source/index.js';
import { rewriteModel } from './index.js';

interface GoldenPlan {
  groups: number[][];
  bypass: Bypass;
  perplexity: number;
  argmax: number[];
  last_top20: [id: number, logit: number][];
}
interface Golden {
  ids: number[];
  plans: GoldenPlan[];
}

let golden: Golden;
let dir: string;
beforeAll(async () => {
  const file = path.resolve(import.meta.dirname, '../../../../testdata/golden/smollm2.json');
  golden = JSON.parse(await readFile(file, 'utf8')) as Golden;
  dir = await mkdtemp(path.join(os.tmpdir(), 'cqil-smollm2-'));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

/** Values of an independent implementation in PyTorch, on the same weights in float32. */
describe.each([0, 1, 2, 3, 4, 5])('SmolLM2 in fp32, plan %i', (index) => {
  it('computes what an independent implementation computes', async () => {
    const expected = golden.plans[index] as GoldenPlan;
    const plan: Plan = parsePlan({
      version: 1,
      layers: 30,
      groups: expected.groups.map((layers) => ({ layers, bypass: expected.bypass })),
    });
    const out = path.join(dir, String(index));
    const started = performance.now();
    const { onnxFile } = await rewriteModel(await locateModel(testModel('fp32')), plan, out);
    expect(performance.now() - started).toBeLessThan(20_000);

    const decoder = await DecoderSession.open(onnxFile);
    try {
      const { logits } = await decoder.forward({ inputIds: [golden.ids], returnCache: false });
      const vocabulary = logits.dims[2];
      const rows = golden.ids.map((_, row) => logits.data.subarray(row * vocabulary, (row + 1) * vocabulary));

      const agreeing = rows.filter((row, i) => indexOfMax(row) === expected.argmax[i]).length;
      expect(agreeing / rows.length).toBeGreaterThanOrEqual(0.995);
      const last = rows.at(-1) as Float32Array;
      for (const [id, logit] of expected.last_top20) {
        expect(Math.abs((last[id] as number) - logit)).toBeLessThanOrEqual(0.02);
      }
      const measured = perplexity(rows, golden.ids);
      expect(Math.abs(measured / expected.perplexity - 1)).toBeLessThanOrEqual(0.002);
    } finally {
      await decoder.dispose();
      await rm(out, { recursive: true });
    }
  });
});

function indexOfMax(row: Float32Array): number {
  let best = 0;
  for (let i = 1; i < row.length; i++) if ((row[i] as number) > (row[best] as number)) best = i;
  return best;
}

/** exp of the mean negative log-likelihood of each token given those before it. */
function perplexity(rows: readonly Float32Array[], ids: readonly number[]): number {
  let sum = 0;
  for (const [i, id] of ids.slice(1).entries()) {
    const row = rows[i] as Float32Array;
    const max = row[indexOfMax(row)] as number;
    const total = row.reduce((acc, value) => acc + Math.exp(value - max), 0);
    sum += max + Math.log(total) - (row[id] as number);
  }
  return Math.exp(sum / (ids.length - 1));
}
