import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { cp, readFile } from 'node:fs/promises';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { tinyModel } from '../packages/plugin-openai/src/test/tiny-model.js';
import { cqil } from './run.js';
import { loaded, serve, stopAll } from './serving.js';

let dir: string;
const at = (name: string) => join(dir, name);

function post(url: string, body: object, init: RequestInit = {}): Promise<Response> {
  const headers = { 'content-type': 'application/json', ...init.headers };
  return fetch(url, { method: 'POST', body: JSON.stringify(body), ...init, headers });
}

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'cqil-serve-'));
  using tiny = tinyModel();
  await cp(tiny.folder, at('tiny'), { recursive: true });
  for (const other of ['model_fp16.onnx', 'model_quantized.onnx']) rmSync(at(`tiny/onnx/${other}`));
  const plan = ['plan', at('tiny'), '--group-size', '2', '--bypass', '1', '--start', '1', '--end', '5'];
  expect(await cqil([...plan, '--out', at('plan.json')])).toMatchObject({ code: 0 });
  const rewrite = ['rewrite', at('tiny'), '--plan', at('plan.json'), '--out', at('tiny-4'), '--no-verify'];
  expect(await cqil(rewrite)).toMatchObject({ code: 0 });
});
afterEach(stopAll);
afterAll(() => rmSync(dir, { recursive: true, force: true }));

describe('serve', () => {
  it('serves a model, the variant beside it, and a page', async () => {
    const { url } = await serve([at('tiny')]);
    await loaded(url);
    const { data } = (await (await fetch(`${url}/v1/models`)).json()) as { data: { id: string }[] };
    expect(data.map(({ id }) => id)).toEqual(['tiny', 'tiny:4-steps']);
    for (const { id } of data) {
      const messages = [{ role: 'user', content: 'Grüße' }];
      const answer = await post(`${url}/v1/chat/completions`, {
        model: id,
        messages,
        max_tokens: 4,
        temperature: 0,
      });
      expect(await answer.json()).toMatchObject({ model: id, usage: { completion_tokens: 4 } });
    }
    const page = await fetch(url);
    expect([page.status, page.headers.get('content-type')]).toEqual([200, 'text/html; charset=utf-8']);
  });

  it('ends what is under way on SIGTERM, refuses what comes meanwhile, and exits with 0', async () => {
    const { url, child, ended, stderr } = await serve([at('tiny'), '--no-variants', '--no-page']);
    await loaded(url);
    const ask = { model: 'tiny', prompt: 'Once', max_tokens: 250, logit_bias: { 2: -100 }, stream: true };
    const streaming = await post(`${url}/v1/completions`, ask);
    const reader = streaming.body!.pipeThrough(new TextDecoderStream()).getReader();
    let text = (await reader.read()).value ?? '';
    child.kill('SIGTERM');
    await expect.poll(async () => (await fetch(`${url}/health`)).status).toBe(503);
    const late = await post(`${url}/v1/completions`, { model: 'tiny', prompt: 'x' });
    expect([late.status, late.headers.get('retry-after')]).toEqual([503, '5']);
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      text += value;
    }
    expect(text).toMatch(/"finish_reason":"length".*\n\ndata: \[DONE\]\n\n$/s);
    expect(await ended).toMatchObject({ code: 0, stdout: '' });
    expect(stderr()).toContain('"msg":"closed"');
  });

  it('wants keys where it has some, from a file or the environment', async () => {
    writeFileSync(at('keys'), '# ours\nfrom-file\n');
    const { url, stderr } = await serve([at('tiny'), '--api-key-file', at('keys')], { CQIL_API_KEYS: 'a,b' });
    await loaded(url);
    const status = async (path: string, key?: string) =>
      (await fetch(url + path, { headers: key === undefined ? {} : { authorization: `Bearer ${key}` } }))
        .status;
    expect(await status('/v1/models')).toBe(401);
    expect(await status('/')).toBe(401);
    expect(await status('/v1/models', '# ours')).toBe(401);
    for (const key of ['from-file', 'a', 'b']) expect(await status('/v1/models', key)).toBe(200);
    expect(stderr()).not.toContain('from-file');
    expect(await readFile(at('keys'), 'utf8')).toContain('from-file');
  });

  it('lets a variant draft, before each step or at the same time, and answers the same', async () => {
    const said = async (...words: string[]) => {
      const { url } = await serve([at('tiny'), '--no-variants', '--no-page', ...words]);
      await loaded(url);
      const asked = { model: 'tiny', prompt: 'one two three', max_tokens: 40, temperature: 0 };
      const answer = await post(`${url}/v1/completions`, asked);
      return (await answer.json()) as { choices: [{ text: string }]; timings: { draft_n?: number } };
    };
    const plain = await said();
    const before = await said('--draft', at('tiny-4'));
    expect(before.choices).toEqual(plain.choices);
    expect([plain.timings.draft_n, before.timings.draft_n]).toEqual([undefined, expect.any(Number)]);
    if (availableParallelism() < 2) return;
    const beside = await said('--draft', at('tiny-4'), '--draft-threads', '1');
    expect(beside.choices).toEqual(plain.choices);
    expect(beside.timings.draft_n).toEqual(expect.any(Number));
  });

  it('refuses to start with what cannot work', async () => {
    writeFileSync(at('empty'), '\n# none\n');
    const refused = async (...args: string[]) => {
      const { code, stdout } = await cqil(['serve', ...args, '--json']);
      expect(code).toBe(2);
      return (JSON.parse(stdout) as { error: { code: string } }).error.code;
    };
    expect(await refused(at('tiny'), '--api-key-file', at('empty'))).toBe('API_KEYS_MISSING');
    expect(await refused(at('tiny'), '--api-key-file', at('none'))).toBe('FILE_UNREADABLE');
    expect(await refused(at('nowhere'), '--port', '0')).toBe('MODEL_NOT_FOUND');
    expect(await refused(at('tiny'), '--port', '0', '--draft', at('nowhere'))).toBe('MODEL_NOT_FOUND');
    expect(await refused(at('tiny'), '--draft-threads', '1')).toBe('DRAFT_THREADS_UNUSED');
    expect(await refused(at('tiny'), '--draft', at('tiny'))).toBe('DRAFT_MODEL_SAME');
    const many = ['--draft', at('empty'), '--draft-threads', '4096'];
    expect(await refused(at('tiny'), ...many)).toBe('DRAFT_THREADS_TOO_MANY');
    const { url } = await serve([at('tiny')]);
    expect(await refused(at('tiny'), '--port', new URL(url).port)).toBe('LISTEN_FAILED');
  });
});
