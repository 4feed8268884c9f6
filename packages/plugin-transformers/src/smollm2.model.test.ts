import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Plan } from '@cqil/core';
import { locateModel, rewriteModel } from '@cqil/planner';
import { DecoderSession } from '@cqil/runtime-gpu';
import * as transformers from '@huggingface/transformers';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { testModel } from '../../../tools/src/test-model.js';
import { withCqil } from './with-cqil.js';

/** Pairs from layer 12 on: the plan whose cost and gain the design was measured by. */
const plan: Plan = {
  version: 1,
  layers: 30,
  groups: [12, 14, 16, 18, 20, 22, 24, 26].map((first) => ({ layers: [first, first + 1], bypass: 1 })),
};

const PROMPTS = [
  'Call me Ishmael. Some years ago',
  'def fibonacci(n):',
  'The three most important inventions of the nineteenth century were',
  'Le petit prince habitait une planète',
];
const CHAT = [{ role: 'user', content: 'What is the capital of France, and what is it known for?' }];
const NEW_TOKENS = 32;
const GREEDY = { max_new_tokens: NEW_TOKENS, do_sample: false };
/** Two tokens this close are equally good: kernels may sum in another order. */
const TIE = 1e-3;

/** Greedy generation by this project's runtime, with the lead of each token over the next best. */
async function generated(decoder: DecoderSession, promptIds: number[], eosIds: readonly number[]) {
  const ids: number[] = [];
  const leads: number[] = [];
  let step = await decoder.forward({ inputIds: [promptIds], keep: 'last' });
  while (ids.length < NEW_TOKENS) {
    const [best, second] = topTwo(step.logits.data);
    ids.push(best.id);
    leads.push(best.value - second.value);
    if (eosIds.includes(best.id)) break;
    step = await decoder.forward({ inputIds: [[best.id]], cache: step.cache, keep: 'last' });
  }
  return { ids, leads };
}

function topTwo(logits: Float32Array) {
  let best = { id: -1, value: Number.NEGATIVE_INFINITY };
  let second = best;
  for (const [id, value] of logits.entries()) {
    if (value > best.value) {
      second = best;
      best = { id, value };
    } else if (value > second.value) second = { id, value };
  }
  return [best, second] as const;
}

describe.each(['fp32', 'q4'] as const)('SmolLM2 by a plan, %s', (which) => {
  let work: string;
  let rewritten: string;
  let graph: string;
  let stock: transformers.TextGenerationPipeline;

  beforeAll(async () => {
    work = mkdtempSync(join(tmpdir(), 'cqil-model-'));
    rewritten = join(work, 'rewritten');
    const written = await rewriteModel(await locateModel(testModel(which)), plan, rewritten);
    graph = written.onnxFile;
    stock = await transformers.pipeline('text-generation', rewritten);
  });
  afterAll(async () => {
    await stock?.dispose();
    rmSync(work, { recursive: true, force: true });
  });

  it('stock Transformers.js generates the tokens that the graph itself does', async () => {
    const decoder = await DecoderSession.open(graph);
    const eosIds = [stock.model.generation_config?.eos_token_id ?? []].flat() as number[];
    let tokens = 0;
    const ties: string[] = [];
    for (const prompt of PROMPTS) {
      const inputs = stock.tokenizer(prompt);
      const promptIds = (inputs.input_ids.tolist() as bigint[][])[0]!.map(Number);
      const output = (await stock.model.generate({ ...inputs, ...GREEDY })) as transformers.Tensor;
      const got = (output.tolist() as bigint[][])[0]!.map(Number).slice(promptIds.length);
      const { ids, leads } = await generated(decoder, promptIds, eosIds);
      tokens += ids.length;
      const at = ids.findIndex((id, i) => got[i] !== id);
      if (at === -1) {
        expect(got).toEqual(ids);
        continue;
      }
      expect(leads[at], `"${prompt}": another token at ${at}, which was no tie`).toBeLessThan(TIE);
      ties.push(`"${prompt}" at token ${at}`);
    }
    await decoder.dispose();
    console.log(
      `${which}: ${tokens} tokens, ${ties.length} of ${PROMPTS.length} texts part at a tie`,
      ...ties,
    );
  });

  it('the plugin gives the same texts from the original model and the plan', async () => {
    const { pipeline } = withCqil(transformers, { plan, verify: false, cacheDir: join(work, 'cache') });
    const generator = await pipeline('text-generation', testModel(which));
    const [prompt = ''] = PROMPTS;
    expect(await generator(prompt, GREEDY)).toEqual(await stock(prompt, GREEDY));
    expect(await generator(CHAT, GREEDY)).toEqual(await stock(CHAT, GREEDY));
    await generator.dispose();
  });
});
