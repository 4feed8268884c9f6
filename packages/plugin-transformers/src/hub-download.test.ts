import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { env, type ProgressInfo } from '@huggingface/transformers';
import { describe, expect, it } from 'vitest';
import { downloadFile, type HubRequest } from './hub-download.js';
import { startHub } from './test/hub.js';
import { temporaryFolder } from './test/temporary.js';

function requestTo(url: string, more: Partial<HubRequest> = {}): HubRequest {
  return { env: { ...env, remoteHost: url }, model: 'org/model', revision: 'main', ...more };
}

describe('downloadFile', () => {
  it('puts the file in its place and tells of it as Transformers.js does', async () => {
    const content = temporaryFolder();
    writeFileSync(join(content, 'model.onnx'), 'graph');
    await using hub = await startHub(content);
    const seen: ProgressInfo[] = [];
    const folder = join(temporaryFolder(), 'org', 'model');
    const there = await downloadFile(
      requestTo(hub.url, { progress: (info) => seen.push(info) }),
      'model.onnx',
      folder,
    );
    expect(there).toBe(true);
    expect(readFileSync(join(folder, 'model.onnx'), 'utf8')).toBe('graph');
    expect(readdirSync(folder)).toEqual(['model.onnx']);
    const about = { name: 'org/model', file: 'model.onnx' };
    expect(seen).toEqual([
      { status: 'initiate', ...about },
      { status: 'download', ...about },
      { status: 'progress', ...about, progress: 100, loaded: 5, total: 5 },
      { status: 'done', ...about },
    ]);
  });

  it.each([401, 403, 404])('is false on status %i', async (status) => {
    await using hub = await startHub(temporaryFolder(), () => status);
    const folder = temporaryFolder();
    expect(await downloadFile(requestTo(hub.url), 'model.onnx', folder)).toBe(false);
    expect(readdirSync(folder)).toEqual([]);
  });

  it('fails with a code on other answers, and where nobody answers', async () => {
    await using hub = await startHub(temporaryFolder(), () => 503);
    const failure = { code: 'HUB_REQUEST_FAILED' };
    await expect(downloadFile(requestTo(hub.url), 'a', temporaryFolder())).rejects.toMatchObject(failure);
    const nobody = requestTo('http://127.0.0.1:1/');
    await expect(downloadFile(nobody, 'a', temporaryFolder())).rejects.toMatchObject(failure);
  });

  it('leaves nothing behind when the connection breaks, or when it is stopped', async () => {
    const server = createServer((_request, response) => {
      response.writeHead(200, { 'content-length': 100 });
      response.write('half');
      setTimeout(() => response.destroy(), 30);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
    const folder = temporaryFolder();
    await expect(downloadFile(requestTo(url), 'a', folder)).rejects.toMatchObject({
      code: 'HUB_REQUEST_FAILED',
    });
    const stop = new AbortController();
    const stopped = downloadFile(requestTo(url, { signal: stop.signal }), 'a', folder);
    setTimeout(() => stop.abort(new Error('enough')), 10);
    await expect(stopped).rejects.toThrow('enough');
    expect(readdirSync(folder)).toEqual([]);
    server.close();
  });

  it("asks with the user's fetch and template, and sends no token to other hosts", async () => {
    const asked: [string, Headers][] = [];
    const own: HubRequest['env'] = {
      ...env,
      remoteHost: 'https://mirror.example/',
      remotePathTemplate: 'api/{model}/at/{revision}/',
      fetch: async (url, init) => {
        asked.push([String(url), init.headers]);
        return new Response('x');
      },
    };
    const before = process.env.HF_TOKEN;
    process.env.HF_TOKEN = 'secret';
    try {
      const request: HubRequest = { env: own, model: 'org/model', revision: 'a/b' };
      await downloadFile(request, 'onnx/model.onnx', temporaryFolder());
      await downloadFile({ ...request, env: { ...own, remoteHost: env.remoteHost } }, 'x', temporaryFolder());
    } finally {
      if (before === undefined) delete process.env.HF_TOKEN;
      else process.env.HF_TOKEN = before;
    }
    expect(asked.map(([url]) => url)).toEqual([
      'https://mirror.example/api/org/model/at/a%2Fb/onnx/model.onnx',
      'https://huggingface.co/api/org/model/at/a%2Fb/x',
    ]);
    expect(asked.map(([, headers]) => headers.get('authorization'))).toEqual([null, 'Bearer secret']);
    expect(existsSync('x')).toBe(false);
  });
});
