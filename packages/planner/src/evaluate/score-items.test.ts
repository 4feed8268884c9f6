import { fileURLToPath } from 'node:url';
import { DecoderSession } from '@cqil/runtime-gpu';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { logSumExp } from './distribution.js';
import { ITEM_KINDS, ITEMS, type Item } from './items/index.js';
import { scoreItems } from './score-items.js';
import type { Tokenizer } from './tokenizer.js';

const model = fileURLToPath(new URL('../../../../testdata/genai-fp32/llama/model.onnx', import.meta.url));

/** Two letters an id, so that the context's last letter and the choice's first can be one token. */
const tokenizer: Tokenizer = {
  encode: (text) =>
    (text.match(/[\s\S]{1,2}/g) ?? []).map(
      (pair) => (pair.charCodeAt(0) * 31 + (pair.charCodeAt(1) || 7)) % 512,
    ),
  decode: (ids) => ids.join(' '),
  bosId: 1,
  eosId: 2,
  size: 512,
};

describe('the items', () => {
  it('are many of each kind, and no two are the same', () => {
    for (const kind of ITEM_KINDS) {
      expect(ITEMS.filter((item) => item.kind === kind).length).toBeGreaterThanOrEqual(30);
    }
    expect(new Set(ITEMS.map(({ context }) => context)).size).toBe(ITEMS.length);
  });

  it.each(ITEMS.map((item) => [item.context.split('\n').slice(-2).join(' '), item] as const))(
    '%s',
    (_, { context, choices, answer }) => {
      expect(context).toMatch(/\S$/);
      expect(choices).toHaveLength(4);
      expect(new Set(choices).size).toBe(4);
      expect(choices.every((choice) => /^ \S.*\S$|^ \S$/.test(choice))).toBe(true);
      expect(choices[answer]).toBeDefined();
    },
  );

  it('have their right answers as often at every place', () => {
    for (const kind of ITEM_KINDS) {
      const answers = ITEMS.filter((item) => item.kind === kind).map(({ answer }) => answer);
      const counts = [0, 1, 2, 3].map((place) => answers.filter((answer) => answer === place).length);
      expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(1);
    }
  });

  it('are right: sums are, and copies are', () => {
    for (const { kind, context, choices, answer } of ITEMS) {
      if (kind === 'arithmetic') {
        const [, a, sign, b] = /(\d+) ([+-]) (\d+) =$/.exec(context)!;
        const result = sign === '+' ? Number(a) + Number(b) : Number(a) - Number(b);
        expect(choices.map(Number).indexOf(result)).toBe(answer);
        expect(choices.every((choice) => choice.length === choices[answer]!.length)).toBe(true);
      }
      if (kind === 'copying') {
        const [, list] = /Input: (.*)\nOutput:$/.exec(context)!;
        expect(choices.indexOf(` ${list}`)).toBe(answer);
      }
    }
  });
});

describe('scoreItems', () => {
  let decoder: DecoderSession;
  beforeAll(async () => {
    decoder = await DecoderSession.open(model, { threads: 1 });
  });
  afterAll(() => decoder.dispose());
  const some = ITEMS.filter((_, i) => i % 9 === 0).filter(({ context }) => context.length < 180);

  /** The definition: each choice behind its context, run as a whole, scored from where the choices part. */
  async function meanLogLikelihood(context: string, choices: readonly string[], at: number): Promise<number> {
    const wholes = choices.map((choice) => tokenizer.encode(context + choice));
    const ids = wholes[at]!;
    const from = ids.findIndex((id, i) => wholes.some((other) => other[i] !== id));
    const { logits } = await decoder.forward({ inputIds: [ids] });
    const size = logits.dims[2];
    let sum = 0;
    for (let i = from; i < ids.length; i++) {
      sum += logits.data[(i - 1) * size + ids[i]!]! - logSumExp(logits.data, (i - 1) * size, size);
    }
    return sum / (ids.length - from);
  }

  it('gives each choice its mean log-likelihood, and chooses the likeliest', async () => {
    expect(new Set(some.map(({ context }) => context.length % 2)).size).toBe(2);
    const result = await scoreItems(decoder, tokenizer, some);
    for (const [i, item] of some.entries()) {
      const { scores, chosen, right } = result.items[i]!;
      for (const at of item.choices.keys()) {
        expect(scores[at]).toBeCloseTo(await meanLogLikelihood(item.context, item.choices, at), 3);
      }
      expect(scores[chosen]).toBe(Math.max(...scores));
      expect(right).toBe(chosen === item.answer);
    }
    for (const { kind, right, total } of result.kinds) {
      const ofKind = result.items.filter((item) => item.kind === kind);
      expect(total).toBe(ofKind.length);
      expect(right).toBe(ofKind.filter((item) => item.right).length);
    }
  });

  it('finds what the model likes best right, whatever it is', async () => {
    const { items } = await scoreItems(decoder, tokenizer, some);
    const liked: Item[] = some.map((item, i) => ({ ...item, answer: items[i]!.chosen }));
    const { kinds } = await scoreItems(decoder, tokenizer, liked);
    for (const { right, total } of kinds) expect(right).toBe(total);
  });

  it('runs what contexts have in common once, and gives the same', async () => {
    const lengths: number[] = [];
    const counted = {
      forward: (request: Parameters<DecoderSession['forward']>[0]) => {
        lengths.push(request.inputIds[0]!.length);
        return decoder.forward(request);
      },
    };
    const copying = ITEMS.filter(({ kind }) => kind === 'copying').slice(0, 3);
    const together = await scoreItems(counted, tokenizer, copying);
    expect(lengths[0]).toBeGreaterThan(30);
    expect(lengths.slice(1).every((length) => length < 30)).toBe(true);
    for (const [i, item] of copying.entries()) {
      const alone = await scoreItems(decoder, tokenizer, [item]);
      for (const [at, score] of alone.items[0]!.scores.entries()) {
        expect(together.items[i]!.scores[at]).toBeCloseTo(score, 4);
      }
    }
  });

  it('reports progress and stops when it is aborted', async () => {
    const controller = new AbortController();
    const seen: number[] = [];
    const run = scoreItems(decoder, tokenizer, some, {
      signal: controller.signal,
      onProgress: ({ done }) => {
        if (seen.push(done) === 2) controller.abort(new Error('enough'));
      },
    });
    await expect(run).rejects.toThrow('enough');
    expect(seen).toEqual([1, 2]);
  });
});
