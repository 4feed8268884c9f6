import { readFileSync } from 'node:fs';
import { argmax, DecoderSession } from '@cqil/runtime-gpu';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { testModel } from '../../../../tools/src/test-model.js';
import { locateModel } from '../source/index.js';
import { compare } from './compare.js';
import { perplexity } from './perplexity.js';
import { loadTokenizer } from './tokenizer.js';

interface Golden {
  readonly ids: number[];
  readonly plans: { groups: number[][]; perplexity: number; argmax: number[] }[];
}
const { ids, plans } = JSON.parse(
  readFileSync(new URL('../../../../testdata/golden/smollm2.json', import.meta.url), 'utf8'),
) as Golden;
const reference = plans.find(({ groups }) => groups.length === 0)!;

describe('measuring SmolLM2', () => {
  let fp32: DecoderSession;
  let q4: DecoderSession;
  beforeAll(async () => {
    fp32 = await DecoderSession.open((await locateModel(testModel('fp32'))).onnxFile);
    q4 = await DecoderSession.open((await locateModel(testModel('q4'))).onnxFile);
  });
  afterAll(async () => {
    await fp32?.dispose();
    await q4?.dispose();
  });

  it('tokenises as the reference does', async () => {
    const tokenizer = await loadTokenizer(testModel('fp32'));
    const text = tokenizer.decode(ids);
    expect(text).toContain('Call me Ishmael.');
    expect(tokenizer.encode(text)).toEqual(ids);
  });

  it('gives the perplexity of the reference: all tokens but the first, in one window', async () => {
    const got = await perplexity(fp32, ids);
    expect(got.tokens).toBe(ids.length - 1);
    expect(Math.abs(got.perplexity / reference.perplexity - 1)).toBeLessThan(1e-4);
  });

  it('predicts the tokens that the reference predicts', async () => {
    const { logits } = await fp32.forward({ inputIds: [ids], returnCache: false });
    const [, count, size] = logits.dims;
    const got = Array.from({ length: count }, (_, i) =>
      argmax(logits.data.subarray(i * size, (i + 1) * size)),
    );
    expect(got).toEqual(reference.argmax);
  });

  it('finds the 4-bit import near the exact one', async () => {
    const { ratio, top1Agreement, kl } = await compare(fp32, q4, ids);
    expect(Math.abs(ratio - 1)).toBeLessThan(0.01);
    expect(top1Agreement).toBeGreaterThan(0.9);
    expect(kl).toBeLessThan(0.01);
  });
});
