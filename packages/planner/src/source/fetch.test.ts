import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CqilError } from '@cqil/core';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { fetchModel } from './fetch.js';
import { type MockHub, mockHub } from './hub/mock-hub.test-helper.js';

const TOKEN = 'hf_very_secret';
const graph = Buffer.concat([
  Buffer.of(8, 8),
  Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * 31) % 251)),
]);

let dir: string;
let out: string;
let hub: MockHub;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'cqil-fetch-'));
  out = join(dir, 'model');
  hub = await mockHub();
  for (const [name, text] of [
    ['config.json', '{"model_type":"llama"}'],
    ['tokenizer.json', '{}'],
    ['LICENSE', 'Apache-2.0'],
    ['.gitattributes', '*'],
    ['plot.png', 'png'],
    ['model.safetensors', 'weights'],
    ['onnx/model_q4.onnx', 'other graph'],
  ] as const) {
    hub.files.set(name, Buffer.from(text));
  }
  hub.files.set('onnx/model.onnx', graph);
  hub.files.set('onnx/model.onnx_data', Buffer.alloc(100_000, 7));
  hub.large.add('onnx/model.onnx').add('onnx/model.onnx_data');
});
afterEach(async () => {
  await hub.close();
  await rm(dir, { recursive: true });
});

const env = (more: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv => ({
  HF_ENDPOINT: hub.endpoint,
  HF_HOME: join(dir, 'hf'),
  ...more,
});
const fetchIt = (more: { dtype?: string; env?: NodeJS.ProcessEnv; signal?: AbortSignal } = {}) =>
  fetchModel('org/model', { out, env: env(), ...more });

async function failure(promise: Promise<unknown>): Promise<CqilError> {
  const error = await promise.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof CqilError)) throw new Error(`expected a CqilError, got ${String(error)}`);
  return error;
}

describe('fetching from a hub', () => {
  it('brings the default graph with its data, configs and licence, pinned to the commit', async () => {
    const seen: number[] = [];
    const result = await fetchModel('org/model', {
      out,
      env: env(),
      onProgress: ({ done }) => seen.push(done),
    });
    expect(result).toMatchObject({ route: 'hub', identity: hub.commit });
    expect((await readdir(out, { recursive: true })).sort()).toEqual(
      ['LICENSE', 'config.json', 'onnx', 'onnx/model.onnx', 'onnx/model.onnx_data', 'tokenizer.json'].sort(),
    );
    expect(await readFile(join(out, 'onnx/model.onnx'))).toEqual(graph);
    expect(await readdir(dir)).toEqual(['model']);
    expect(seen).toEqual([...seen].sort((a, b) => a - b));
  });

  it('takes the dtype asked for, and lists what there is for a wrong one', async () => {
    await fetchIt({ dtype: 'q4' });
    expect(await readdir(join(out, 'onnx'))).toEqual(['model_q4.onnx']);
    await rm(out, { recursive: true });
    const error = await failure(fetchIt({ dtype: 'fp16' }));
    expect(error).toMatchObject({ code: 'MODEL_DTYPE_MISSING', found: 'fp32, q4' });
    expect(await readdir(dir)).toEqual([]);
  });

  it('follows the dtype of the config', async () => {
    hub.files.set('config.json', Buffer.from('{"transformers.js_config":{"dtype":"q4"}}'));
    await fetchIt();
    expect(await readdir(join(out, 'onnx'))).toEqual(['model_q4.onnx']);
  });

  it('goes on where a cut connection stopped', async () => {
    hub.cuts.set('onnx/model.onnx', [1000, 70_000]);
    await fetchIt();
    expect(await readFile(join(out, 'onnx/model.onnx'))).toEqual(graph);
    const ranges = hub.requests.filter(({ host, path }) => host === 'cdn' && path === '/onnx/model.onnx');
    expect(ranges.map(({ range }) => range)).toEqual([undefined, 'bytes=1000-', 'bytes=71000-']);
  });

  it('goes on where an earlier run stopped, also against a server without ranges', async () => {
    for (const ignoreRanges of [false, true]) {
      hub.ignoreRanges = ignoreRanges;
      hub.cuts.set('onnx/model.onnx', [50_000]);
      const stop = new AbortController();
      const stopped = fetchModel('org/model', {
        out,
        env: env(),
        signal: stop.signal,
        onProgress: ({ done }) => done > 40_000 && stop.abort(),
      });
      await expect(stopped).rejects.toMatchObject({ name: 'AbortError' });
      expect(await readdir(dir)).toEqual(['model.part']);
      hub.cuts.clear();
      hub.requests.length = 0;
      await fetchIt();
      expect(await readFile(join(out, 'onnx/model.onnx'))).toEqual(graph);
      expect(hub.requests.find(({ path }) => path === '/onnx/model.onnx')?.range).toMatch(/^bytes=\d{5,}-$/);
      await rm(out, { recursive: true });
    }
  });

  it('shows the token to the hub and to no other host', async () => {
    await fetchIt({ env: env({ HF_TOKEN: TOKEN }) });
    const [own, other] = (['hub', 'cdn'] as const).map((host) =>
      hub.requests.filter((seen) => seen.host === host),
    );
    expect(own?.length).toBeGreaterThan(4);
    expect(own?.every(({ authorization }) => authorization === `Bearer ${TOKEN}`)).toBe(true);
    expect(other?.length).toBe(2);
    expect(other?.every(({ authorization }) => authorization === undefined)).toBe(true);
  });

  it('reads the token that a login left in HF_HOME', async () => {
    await mkdir(join(dir, 'hf'));
    await writeFile(join(dir, 'hf/token'), `${TOKEN}\n`);
    await fetchIt();
    expect(hub.requests[0]?.authorization).toBe(`Bearer ${TOKEN}`);
  });

  it('takes whole files from the cache in HF_HOME, and only those', async () => {
    const blobs = join(dir, 'hf/hub/models--org--model/blobs');
    await mkdir(blobs, { recursive: true });
    await writeFile(join(blobs, createHash('sha256').update(graph).digest('hex')), graph);
    const data = hub.files.get('onnx/model.onnx_data') as Buffer;
    await writeFile(join(blobs, createHash('sha256').update(data).digest('hex')), 'damaged');
    await fetchIt();
    expect(hub.requests.filter(({ host }) => host === 'cdn').map(({ path }) => path)).toEqual([
      '/onnx/model.onnx_data',
    ]);
  });

  it.each(['onnx/model.onnx', 'tokenizer.json'])('refuses %s when its hash is wrong', async (name) => {
    hub.falseHashes.set(name, '0'.repeat(name.endsWith('.onnx') ? 64 : 40));
    const error = await failure(fetchIt({ env: env({ HF_TOKEN: TOKEN }) }));
    expect(error).toMatchObject({ code: 'FETCH_HASH_MISMATCH' });
    expect(error.message).not.toContain(TOKEN);
    expect(error.message).not.toContain('signature');
    expect(await readdir(dir)).not.toContain('model');
  });

  it.each([
    [401, 'FETCH_NOT_ALLOWED'],
    [403, 'FETCH_NOT_ALLOWED'],
    [404, 'FETCH_NOT_FOUND'],
    [500, 'FETCH_REFUSED'],
  ])('explains status %i', async (status, code) => {
    hub.status = status;
    const error = await failure(fetchIt({ env: env({ HF_TOKEN: TOKEN }) }));
    expect(error.code).toBe(code);
    expect(error.message).not.toContain(TOKEN);
    expect(await readdir(dir)).toEqual([]);
  });

  it('explains a hub that is not there', async () => {
    const error = await failure(fetchIt({ env: env({ HF_ENDPOINT: 'http://127.0.0.1:9' }) }));
    expect(error.code).toBe('FETCH_UNREACHABLE');
  });

  it('refuses file names that lead out of the folder', async () => {
    for (const name of ['../evil', '/etc/evil', 'a/../../evil', 'a\\evil', 'C:evil']) {
      hub.files.set(name, Buffer.from('x'));
      expect(await failure(fetchIt())).toMatchObject({ code: 'FETCH_PATH_UNSAFE' });
      hub.files.delete(name);
    }
  });

  it('refuses what it cannot use before it asks anyone', async () => {
    await mkdir(out);
    await writeFile(join(out, 'precious'), '');
    expect(await failure(fetchIt())).toMatchObject({ code: 'OUTPUT_NOT_EMPTY' });
    await rm(out, { recursive: true });
    for (const name of ['no-such-name', 'a/b/c', '../x', 'a/..']) {
      expect(await failure(fetchModel(name, { out, env: env() }))).toMatchObject({
        code: 'FETCH_NAME_INVALID',
      });
    }
    expect(await failure(fetchIt({ dtype: 'q5' }))).toMatchObject({ code: 'MODEL_DTYPE_UNKNOWN' });
    expect(await failure(fetchIt({ env: env({ HF_ENDPOINT: 'nonsense' }) }))).toMatchObject({
      code: 'FETCH_ENDPOINT_INVALID',
    });
    expect(hub.requests).toEqual([]);
  });

  it('says what else a repository holds when there is no graph in it', async () => {
    for (const name of [...hub.files.keys()]) if (name.endsWith('.onnx')) hub.files.delete(name);
    const error = await failure(fetchIt());
    expect(error).toMatchObject({ code: 'MODEL_FOLDER_WITHOUT_MODEL', found: 'model.safetensors' });
  });
});
