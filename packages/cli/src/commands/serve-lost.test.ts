import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { createOpenAIHandler, openModelFolder } from '@cqil/plugin-openai';
import { openPartitioned } from '@cqil/runtime-gpu';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { tinyModel } from '../../../plugin-openai/src/test/tiny-model.js';
import { cqil, testdata } from '../test/run.js';

/** How often the model was opened; the first time, the thread of its second device ends at the tenth step. */
const opened = vi.hoisted(() => ({ count: 0 }));
vi.mock(import('@cqil/runtime-gpu'), async (original) => {
  const runtime = await original();
  return {
    ...runtime,
    openDecoder: async (place) => {
      opened.count += 1;
      const fault = { device: 1, step: 10, call: 0, what: 'die' } as const;
      return (await openPartitioned(place, opened.count === 1 ? { fault } : {})).decoder;
    },
  };
});

let dir: string;
let parts: string;

beforeAll(async () => {
  dir = await mkdtemp(path.join(os.tmpdir(), 'cqil-cli-lost-'));
  const [model, whole, plan] = ['model', 'planned', 'plan.json'].map((name) => path.join(dir, name));
  using tiny = tinyModel();
  await cp(tiny.folder, model!, { recursive: true });
  await rm(path.join(model!, 'onnx'), { recursive: true });
  await cp(testdata('genai-fp32/llama'), path.join(model!, 'onnx'), { recursive: true });
  await rm(path.join(model!, 'onnx/genai_config.json'));
  const groups = [{ layers: [1, 2], bypass: 1 }];
  await writeFile(plan!, JSON.stringify({ version: 1, layers: 6, groups }));
  parts = path.join(dir, 'parts');
  expect((await cqil('rewrite', model!, '--plan', plan!, '--out', whole!, '--no-verify')).code).toBe(0);
  expect((await cqil('partition', whole!, '--devices', 'cpu:0,cpu:1', '--out', parts)).code).toBe(0);
});
afterAll(() => rm(dir, { recursive: true, force: true }));

describe('a partition whose thread ends', () => {
  it('costs the request under way, and is opened anew for the next', async () => {
    await using folder = await openModelFolder(parts, { id: 'parts' });
    const faults: unknown[] = [];
    const handler = createOpenAIHandler({ models: folder.sources, onError: (cause) => faults.push(cause) });
    const ask = async (tokens: number) => {
      const body = JSON.stringify({ model: 'parts', prompt: 'Once', max_tokens: tokens, temperature: 0 });
      const response = await handler(
        new Request('http://localhost/v1/completions', { method: 'POST', body }),
      );
      const answer = (await response.json()) as { error?: { code: string }; choices?: { text: string }[] };
      return { status: response.status, code: answer.error?.code, text: answer.choices?.[0]?.text };
    };
    const before = await ask(4);
    expect(before.status).toBe(200);
    expect(await ask(20)).toMatchObject({ status: 500, code: 'model_lost' });
    expect(faults).toMatchObject([{ code: 'MODEL_LOST', cause: { code: 'EXECUTOR_DEVICE_LOST' } }]);
    expect(opened.count).toBe(1);
    const after = await ask(20);
    expect(after.status).toBe(200);
    expect(after.text?.startsWith(before.text!)).toBe(true);
    expect(opened.count).toBe(2);
  });
});
