import { cp, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { createOpenAIHandler, openModelFolder, openTextModel } from '@cqil/plugin-openai';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { tinyModel } from '../../../plugin-openai/src/test/tiny-model.js';
import { cqil, testdata } from '../test/run.js';

let dir: string;
let whole: string;
let parts: string;

beforeAll(async () => {
  dir = await mkdtemp(path.join(os.tmpdir(), 'cqil-cli-parts-'));
  const model = path.join(dir, 'model');
  using tiny = tinyModel();
  await cp(tiny.folder, model, { recursive: true });
  // The same model in fused operators, which append to caches in place.
  await rm(path.join(model, 'onnx'), { recursive: true });
  await cp(testdata('genai-fp32/llama'), path.join(model, 'onnx'), { recursive: true });
  await rm(path.join(model, 'onnx/genai_config.json'));
  const plan = path.join(dir, 'plan.json');
  const groups = [
    { layers: [1, 2], bypass: 1 },
    { layers: [3, 4], bypass: 0 },
  ];
  await writeFile(plan, JSON.stringify({ version: 1, layers: 6, groups }));
  [whole, parts] = [path.join(dir, 'planned'), path.join(dir, 'parts')];
  expect((await cqil('rewrite', model, '--plan', plan, '--out', whole, '--no-verify')).code).toBe(0);
  expect((await cqil('partition', whole, '--devices', 'cpu:0,cpu:1', '--out', parts)).code).toBe(0);
});
afterAll(() => rm(dir, { recursive: true, force: true }));

async function greedy(folder: string, prompt: string, parallel: number): Promise<string> {
  await using model = await openTextModel(folder, { parallel });
  let text = '';
  const options = { maxTokens: 24, temperature: 0, topP: 1, seed: 1, signal: new AbortController().signal };
  for await (const piece of model.generate({ promptIds: await model.encode(prompt), ...options })) {
    text += piece.text;
  }
  return text;
}

describe('a folder that cqil partition wrote', () => {
  it('has the side files of the model, and no graph of its own', async () => {
    const [before, after] = await Promise.all([readdir(whole), readdir(parts)]);
    expect(after.sort()).toEqual(
      [...before.filter((name) => name !== 'onnx'), 'cqil.partition.json', 'parts'].sort(),
    );
    expect(after).toEqual(expect.arrayContaining(['config.json', 'tokenizer.json', 'cqil.plan.json']));
    for (const name of ['tokenizer.json', 'generation_config.json', 'cqil.plan.json']) {
      expect(await readFile(path.join(parts, name))).toEqual(await readFile(path.join(whole, name)));
    }
  });

  it.each([1, 3])('generates the tokens of the single graph, %i requests at a time', async (parallel) => {
    for (const prompt of ['Once upon a time there was', 'x']) {
      expect(await greedy(parts, prompt, parallel)).toBe(await greedy(whole, prompt, parallel));
    }
  });

  it('is served by its own name, and beside the model as a variant', async () => {
    const answers: string[] = [];
    for (const folder of [whole, parts]) {
      await using opened = await openModelFolder(folder, { id: 'one' });
      expect(opened.sources.map(({ id, steps }) => [id, steps])).toEqual([['one', 4]]);
      const handler = createOpenAIHandler({ models: opened.sources });
      const response = await handler(
        new Request('http://localhost/v1/chat/completions', {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body: JSON.stringify({
            model: 'one',
            messages: [{ role: 'user', content: 'Hello' }],
            temperature: 0,
            max_tokens: 12,
          }),
        }),
      );
      expect(response.status).toBe(200);
      const { choices } = (await response.json()) as { choices: [{ message: { content: string } }] };
      answers.push(choices[0].message.content);
    }
    expect(answers[1]).toBe(answers[0]);
    await using family = await openModelFolder(path.join(dir, 'model'));
    expect(family.sources.map(({ id }) => id)).toEqual(['model', 'model:parts', 'model:planned']);
  });

  it('is talked to', async () => {
    const said = async (...more: string[]) => {
      const { code, stdout } = await cqil(
        'chat',
        parts,
        '--prompt',
        'Hi',
        '--max-tokens',
        '9',
        '--json',
        ...more,
      );
      expect(code).toBe(0);
      return JSON.parse(stdout) as { text: string; tokens: number };
    };
    const answer = await said();
    expect(answer.tokens).toBeGreaterThan(0);
    expect(await said()).toMatchObject({ text: answer.text });
    const drawn = await said('--seed', '3');
    expect((await said('--seed', '3')).text).toBe(drawn.text);
    expect(drawn.text).not.toBe(answer.text);
  });

  it('is measured beside the single graph', async () => {
    const sizes = ['--prompt-tokens', '4', '--decode-tokens', '2', '--rounds', '1', '--threads', '1'];
    const { code, stdout } = await cqil('bench', whole, parts, ...sizes, '--json');
    expect(code).toBe(0);
    const { models } = JSON.parse(stdout) as { models: { name: string; decodeMs: { median: number } }[] };
    expect(models.map(({ name }) => name)).toEqual(['planned', 'parts']);
    for (const { decodeMs } of models) expect(decodeMs.median).toBeGreaterThan(0);
  });

  it.each([
    ['inspect', []],
    ['verify', ['model']],
    ['partition', ['--devices', 'cpu:0,cpu:1', '--out', 'again']],
  ])('is refused by cqil %s, which wants one graph', async (command, more) => {
    const others = more.map((word) => (['model', 'again'].includes(word) ? path.join(dir, word) : word));
    const { code, stdout } = await cqil(command, parts, ...others, '--json');
    expect(code).toBe(2);
    const { error } = JSON.parse(stdout);
    expect(error).toMatchObject({ code: 'MODEL_IS_PARTITION' });
    expect(error.hint).toContain('cut from');
  });

  it('says so where the weights that it refers to are gone', async () => {
    const away = `${whole}-away`;
    await rename(whole, away);
    try {
      const { code, stdout } = await cqil('chat', parts, '--prompt', 'Hi', '--json');
      expect(code).not.toBe(0);
      expect(JSON.parse(stdout).error.code).toBe('PARTITION_STALE');
    } finally {
      await rename(away, whole);
    }
  });
});
