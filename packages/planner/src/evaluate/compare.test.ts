import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { DecoderSession } from '@cqil/runtime-gpu';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readModel, Tensor } from '../onnx/index.js';
import { openVariant } from '../variant/index.js';
import { compare } from './compare.js';
import { perplexity } from './perplexity.js';
import { writeText } from './self-text.js';
import type { Tokenizer } from './tokenizer.js';

const testdata = (file: string) => fileURLToPath(new URL(`../../../../testdata/${file}`, import.meta.url));
const { ids } = JSON.parse(readFileSync(testdata('golden/tiny-llama.json'), 'utf8')) as { ids: number[] };

describe('measuring models', () => {
  let original: DecoderSession;
  let damaged: DecoderSession;
  beforeAll(async () => {
    const model = await readModel(testdata('genai-fp32/llama/model.onnx'));
    original = await DecoderSession.open(testdata('genai-fp32/llama/model.onnx'), { threads: 1 });
    const variant = model.clone();
    for (const [name, tensor] of model.graph.initializers) {
      if (!/layers\.[234]\..*down_proj/.test(name)) continue;
      variant.graph.initializers.set(
        name,
        Tensor.create(name, tensor.dataType, tensor.dims, new Uint8Array(tensor.byteLength)),
      );
    }
    damaged = new DecoderSession(await openVariant(variant, { threads: 1 }));
  });
  afterAll(async () => {
    await original.dispose();
    await damaged.dispose();
  });

  it('computes perplexity as the definition says', async () => {
    const { logits } = await original.forward({ inputIds: [ids] });
    let nll = 0;
    for (let i = 1; i < ids.length; i++) {
      const row = [...logits.data.subarray((i - 1) * 512, i * 512)].map((value) => Math.exp(value));
      nll -= Math.log(row[ids[i]!]! / row.reduce((a, b) => a + b));
    }
    const got = await perplexity(original, ids);
    expect(got.tokens).toBe(ids.length - 1);
    expect(got.perplexity).toBeCloseTo(Math.exp(nll / (ids.length - 1)), 2);
  });

  it('gives a full stride the context of its window only', async () => {
    const halves = [ids.slice(0, 12), ids.slice(12)];
    const [first, second] = await Promise.all(halves.map((half) => perplexity(original, half)));
    const got = await perplexity(original, ids, { window: 12 });
    expect(got.nll).toBeCloseTo((first!.nll + second!.nll) / 2, 5);
    const sliding = await perplexity(original, ids, { window: 12, stride: 1 });
    expect(sliding.tokens).toBe(ids.length - 1);
  });

  it('finds a model equal to itself', async () => {
    const got = await compare(original, original, ids, { window: 12, stride: 6 });
    expect(got).toMatchObject({ kl: 0, top1Agreement: 1, nearTies: 0, ratio: 1, tokens: ids.length - 1 });
  });

  it('finds a damaged model different, and reports progress', async () => {
    const seen: number[] = [];
    const got = await compare(original, damaged, ids, {
      window: 12,
      stride: 6,
      onProgress: ({ done }) => seen.push(done),
    });
    expect(got.kl).toBeGreaterThan(0.01);
    expect(got.top1Agreement).toBeLessThan(0.9);
    expect(got.a).toEqual(await perplexity(original, ids, { window: 12, stride: 6 }));
    expect(got.b).toEqual(await perplexity(damaged, ids, { window: 12, stride: 6 }));
    expect(got.ratio).toBeCloseTo(got.b.perplexity / got.a.perplexity, 10);
    expect(seen.at(-1)).toBe(ids.length - 1);
  });

  it('stops when it is aborted', async () => {
    const controller = new AbortController();
    const run = compare(original, damaged, ids, {
      window: 6,
      signal: controller.signal,
      onProgress: () => controller.abort(new Error('enough')),
    });
    await expect(run).rejects.toThrow('enough');
  });

  it('lets the model write text, the same for the same seed', async () => {
    const tokenizer: Tokenizer = {
      encode: (text) => [...text].slice(0, 3).map((letter) => letter.charCodeAt(0)),
      decode: (tokens) => tokens.join(' '),
      bosId: 1,
      eosId: 2,
      size: 512,
    };
    const rows = await writeText(original, tokenizer, { tokens: 64, sequences: 4, seed: 3 });
    expect(rows.map((row) => row.length)).toEqual([16, 16, 16, 16]);
    expect(rows[0]!.slice(0, 4)).toEqual([1, 84, 104, 101]);
    expect(rows.flat().every((id) => Number.isInteger(id) && id >= 0 && id < 512)).toBe(true);
    expect(await writeText(original, tokenizer, { tokens: 64, sequences: 4, seed: 3 })).toEqual(rows);
    expect(await writeText(original, tokenizer, { tokens: 64, sequences: 4, seed: 4 })).not.toEqual(rows);
  });
});
