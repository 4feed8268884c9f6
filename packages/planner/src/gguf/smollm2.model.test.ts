import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { DecoderSession } from '@cqil/runtime-gpu';
import { Tokenizer } from '@huggingface/tokenizers';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { testModel } from '../../../../tools/src/test-model.js';
import { type ImportResult, importGguf } from './import.js';

interface Golden {
  readonly ids: number[];
  readonly plans: readonly {
    readonly groups: number[][];
    readonly perplexity: number;
    readonly argmax: number[];
    readonly last_top20: [id: number, logit: number][];
  }[];
}

const golden = JSON.parse(
  await readFile(fileURLToPath(new URL('../../../../testdata/golden/smollm2.json', import.meta.url)), 'utf8'),
) as Golden;
/** The plan without groups: the model itself, in float32, by an independent implementation. */
const original = golden.plans.find(({ groups }) => groups.length === 0)!;

let dir: string;
const results = new Map<'fp32' | 'source', ImportResult>();

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'cqil-gguf-smollm2-'));
  for (const dtype of ['fp32', 'source'] as const) {
    const started = performance.now();
    results.set(dtype, await importGguf(testModel('gguf'), join(dir, dtype), { dtype }));
    expect(performance.now() - started).toBeLessThan(60_000);
  }
  // Kilobytes, and of this whole process, the test runner included.
  expect(process.resourceUsage().maxRSS).toBeLessThan(2 * 1024 * 1024);
});
afterAll(() => rm(dir, { recursive: true, force: true }));

async function logitRows(dtype: 'fp32' | 'source'): Promise<Float32Array[]> {
  const decoder = await DecoderSession.open(results.get(dtype)!.onnxFile);
  try {
    const { logits } = await decoder.forward({ inputIds: [golden.ids], returnCache: false });
    const vocabulary = logits.dims[2];
    return golden.ids.map((_, i) => logits.data.slice(i * vocabulary, (i + 1) * vocabulary));
  } finally {
    await decoder.dispose();
  }
}

function perplexity(rows: readonly Float32Array[]): number {
  let sum = 0;
  for (let i = 0; i + 1 < rows.length; i++) {
    const row = rows[i]!;
    const largest = row.reduce((a, b) => Math.max(a, b));
    const total = row.reduce((a, value) => a + Math.exp(value - largest), 0);
    sum += largest + Math.log(total) - row[golden.ids[i + 1]!]!;
  }
  return Math.exp(sum / (rows.length - 1));
}

const indexOfMax = (row: Float32Array) => row.reduce((best, value, i) => (value > row[best]! ? i : best), 0);

describe('SmolLM2-135M-Instruct from GGUF', () => {
  it('in fp32 has the logits of an independent implementation', async () => {
    const rows = await logitRows('fp32');
    const agreeing = rows.filter((row, i) => indexOfMax(row) === original.argmax[i]).length;
    expect(agreeing / rows.length).toBeGreaterThanOrEqual(0.995);
    for (const [id, logit] of original.last_top20) {
      expect(Math.abs(rows.at(-1)![id]! - logit)).toBeLessThanOrEqual(0.02);
    }
    expect(Math.abs(perplexity(rows) / original.perplexity - 1)).toBeLessThanOrEqual(0.002);
  });

  it('with its 4-bit weights repacked stays within 1 % of the perplexity', async () => {
    expect(Math.abs(perplexity(await logitRows('source')) / original.perplexity - 1)).toBeLessThanOrEqual(
      0.01,
    );
  });

  it('cuts text into the tokens of the reference', async () => {
    const read = async (name: string): Promise<object> =>
      JSON.parse(await readFile(join(dir, 'fp32', name), 'utf8')) as object;
    const tokenizer = new Tokenizer(await read('tokenizer.json'), await read('tokenizer_config.json'));
    expect(tokenizer.encode(tokenizer.decode(golden.ids)).ids).toEqual(golden.ids);
  });

  it('gives the same bytes again', async () => {
    const hashes = async (folder: string) => {
      const out: Record<string, string> = {};
      for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
        if (!entry.isFile()) continue;
        const hash = createHash('sha256');
        for await (const chunk of createReadStream(join(entry.parentPath, entry.name))) hash.update(chunk);
        out[entry.name] = hash.digest('hex');
      }
      return out;
    };
    await importGguf(testModel('gguf'), join(dir, 'again'), { dtype: 'source' });
    expect(await hashes(join(dir, 'again'))).toEqual(await hashes(join(dir, 'source')));
  });

  it('loads in stock Transformers.js by its folder alone, with its chat template', async () => {
    const { env, pipeline } = await import('@huggingface/transformers');
    env.allowRemoteModels = false;
    const generator = await pipeline('text-generation', join(dir, 'fp32'));
    try {
      const chat = [{ role: 'user', content: 'What is the capital of France?' }];
      const answer = await generator(chat, { max_new_tokens: 12, do_sample: false });
      expect(JSON.stringify(answer)).toContain('Paris');
      const prompts = ['The capital of France is', 'Once upon a time, in a small village by the sea, there'];
      const options = { max_new_tokens: 8, do_sample: false } as const;
      const together = await generator(prompts, options);
      for (const [i, prompt] of prompts.entries()) {
        expect(together[i]).toEqual(await generator(prompt, options));
      }
    } finally {
      await generator.dispose();
    }
  });
});
