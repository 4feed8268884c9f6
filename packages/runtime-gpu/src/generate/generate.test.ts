import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { golden, testdata } from '../test/fixtures.js';
import { DecoderSession } from './decoder.js';
import { generate } from './generate.js';
import { argmax } from './sampling.js';

const promptIds = golden('llama').ids.slice(0, 8);

describe('generate', () => {
  let decoder: DecoderSession;
  beforeAll(async () => {
    decoder = await DecoderSession.open(testdata('optimum/llama/onnx/model.onnx'), { threads: 1 });
  });
  afterAll(() => decoder.dispose());

  it('without temperature takes the best token each time, as without a cache', async () => {
    const { ids, finishReason } = await generate(decoder, { promptIds, maxTokens: 6 });
    expect(finishReason).toBe('length');
    const expected: number[] = [];
    for (let i = 0; i < 6; i++) {
      const { logits } = await decoder.forward({ inputIds: [[...promptIds, ...expected]], keep: 'last' });
      expected.push(argmax(logits.data));
    }
    expect(ids).toEqual(expected);
  });

  it('stops at an end token and hands out each token as it comes', async () => {
    const all = await generate(decoder, { promptIds, maxTokens: 12, temperature: 1, seed: 5 });
    const end = all.ids[4]!;
    const seen: number[] = [];
    const stopped = await generate(decoder, {
      promptIds,
      maxTokens: 12,
      temperature: 1,
      seed: 5,
      eosIds: [end],
      onToken: (id) => seen.push(id),
    });
    expect(stopped.finishReason).toBe('stop');
    expect(stopped.ids).toEqual(all.ids.slice(0, all.ids.indexOf(end) + 1));
    expect(seen).toEqual(stopped.ids);
  });

  it('repeats itself for one seed and not for another', async () => {
    const run = (seed: number) => generate(decoder, { promptIds, maxTokens: 16, temperature: 1, seed });
    expect(await run(1)).toEqual(await run(1));
    expect(await run(1)).not.toEqual(await run(2));
  });

  it('stops when it is aborted', async () => {
    const controller = new AbortController();
    const seen: number[] = [];
    const run = generate(decoder, {
      promptIds,
      maxTokens: 1000,
      signal: controller.signal,
      onToken: (id) => {
        seen.push(id);
        if (seen.length === 3) controller.abort(new Error('enough'));
      },
    });
    await expect(run).rejects.toThrow('enough');
    expect(seen).toHaveLength(3);
  });

  it('generates nothing for no tokens', async () => {
    expect(await generate(decoder, { promptIds, maxTokens: 0 })).toEqual({ ids: [], finishReason: 'length' });
  });
});
