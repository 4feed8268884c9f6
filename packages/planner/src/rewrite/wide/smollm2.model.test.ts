import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { type Plan, parsePlan } from '@cqil/core';
import { DecoderSession } from '@cqil/runtime-gpu';
import { beforeAll, describe, expect, it } from 'vitest';
import { testModel } from '../../../../../tools/src/test-model.js';
import { perplexity } from '../../evaluate/index.js';
import { type Model, readModel } from '../../onnx/index.js';
import { locateModel } from '../../source/index.js';
import { openVariant } from '../../variant/index.js';
import { rewriteBranches } from '../index.js';
import { rewriteGroups, type WideOptions } from './index.js';

/** Pairs 12 to 27 with bypass full, and what an independent implementation gives on the weights in float32. */
interface Golden {
  ids: number[];
  plans: {
    groups: number[][];
    bypass: unknown;
    perplexity: number;
    last_top20: [id: number, logit: number][];
  }[];
}

let golden: Golden;
beforeAll(async () => {
  const file = path.resolve(import.meta.dirname, '../../../../../testdata/golden/smollm2.json');
  golden = JSON.parse(await readFile(file, 'utf8')) as Golden;
});

const full = () => golden.plans.find(({ bypass }) => bypass === 'full') as Golden['plans'][number];

function planOf(form: 'branches' | 'wide'): Plan {
  const groups = full().groups.map((layers) => ({ layers, bypass: 'full', form }));
  return parsePlan({ version: 1, layers: 30, groups });
}

async function using<T>(model: Model, use: (decoder: DecoderSession) => Promise<T>): Promise<T> {
  await using decoder = new DecoderSession(await openVariant(model));
  return await use(decoder);
}

describe('SmolLM2 with wide layers', () => {
  it('in fp32 is the branches form within 0.02, and what an independent implementation computes', async () => {
    const source = await readModel((await locateModel(testModel('fp32'))).onnxFile);
    const logits = (model: Model) =>
      using(
        model,
        async (decoder) => (await decoder.forward({ inputIds: [golden.ids], returnCache: false })).logits,
      );
    const branches = await logits(rewriteBranches(source, planOf('branches')).model);
    const wide = await logits((await rewriteGroups(source, planOf('wide'))).model);
    const worst = wide.data.reduce(
      (most, value, i) => Math.max(most, Math.abs(value - (branches.data[i] as number))),
      0,
    );
    expect(worst).toBeLessThanOrEqual(0.02);
    const last = wide.data.slice(-wide.dims[2]);
    for (const [id, logit] of full().last_top20) {
      expect(Math.abs((last[id] as number) - logit)).toBeLessThanOrEqual(0.02);
    }
  });

  it.each<[NonNullable<WideOptions['storage']>, number]>([
    ['int8-blocks', 0.02],
    ['auto', 0.12],
  ])(
    'from 4-bit weights, stored as %s, loses at most a share of %d of perplexity',
    async (storage, share) => {
      const source = await readModel((await locateModel(testModel('q4'))).onnxFile);
      const measured = (model: Model) =>
        using(model, async (decoder) => (await perplexity(decoder, golden.ids)).perplexity);
      const branches = await measured(rewriteBranches(source, planOf('branches')).model);
      const wide = await measured((await rewriteGroups(source, planOf('wide'), { storage })).model);
      expect(wide / branches - 1).toBeLessThanOrEqual(share);
    },
  );
});
