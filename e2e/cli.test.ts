import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { cqil, testdata } from './run.js';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'cqil-e2e-'));
});
afterEach(() => rm(dir, { recursive: true, force: true }));

describe('cqil as a process', () => {
  it('helps on stdout when asked, on stderr when it has to', async () => {
    expect(await cqil(['--help'])).toMatchObject({
      code: 0,
      stderr: '',
      stdout: expect.stringContaining('cqil rewrite'),
    });
    expect(await cqil([])).toMatchObject({
      code: 2,
      stdout: '',
      stderr: expect.stringContaining('cqil rewrite'),
    });
  });

  it.each([
    'fetch',
    'import',
    'inspect',
    'optimize',
    'report',
    'probe',
    'plan',
    'rewrite',
    'verify',
    'chat',
    'bench',
  ])('knows %s and its options', async (command) => {
    const { code, stdout } = await cqil([command, '--help']);
    expect(code).toBe(0);
    expect(stdout).toContain(`cqil ${command} <`);
    expect(await cqil([command])).toMatchObject({ code: 2, stdout: '' });
  });

  it('prints one JSON document on stdout and nothing else', async () => {
    const { code, stdout, stderr } = await cqil(['inspect', testdata('optimum/llama'), '--json']);
    expect(code).toBe(0);
    expect(stderr).toBe('');
    expect(JSON.parse(stdout)).toMatchObject({ layers: { length: 6 } });
  });

  it('writes what is for people to stderr', async () => {
    const { code, stdout, stderr } = await cqil(['inspect', testdata('optimum/llama')]);
    expect(code).toBe(0);
    expect(stdout).toBe('');
    expect(stderr).toContain('groupable');
  });

  it('measures models side by side', async () => {
    const models = [testdata('optimum/llama'), testdata('genai-fp32/llama')];
    const { code, stdout, stderr } = await cqil([
      'bench',
      ...models,
      '--rounds',
      '2',
      '--decode-tokens',
      '2',
      '--json',
    ]);
    expect(stderr).toContain('measuring');
    expect(code).toBe(0);
    const { models: measured } = JSON.parse(stdout) as {
      models: { name: string; decodeMs: { median: number } }[];
    };
    expect(measured.map(({ name }) => name)).toEqual(models);
    expect(measured.every(({ decodeMs }) => decodeMs.median > 0)).toBe(true);
  });

  it('ends well when nobody reads on', async () => {
    const { code, stderr } = await cqil(['inspect', testdata('optimum/llama'), '--json'], {
      onStart: (child) => child.stdout?.destroy(),
    });
    expect(code).toBe(0);
    expect(stderr).toBe('');
  });
});

describe('bad input to the process', () => {
  const cases: [what: string, args: (dir: string) => string[], code: string][] = [
    ['an unknown command', () => ['inspct', 'x'], 'COMMAND_UNKNOWN'],
    ['an unknown option', () => ['inspect', testdata('optimum/llama'), '--detph'], 'OPTION_UNKNOWN'],
    ['a missing model', (at) => ['inspect', join(at, 'nowhere')], 'MODEL_NOT_FOUND'],
    ['a folder without a model', (at) => ['inspect', at], 'MODEL_FOLDER_WITHOUT_MODEL'],
    ['a file that is no model', () => ['inspect', testdata('golden/tiny-llama.json')], 'MODEL_NOT_ONNX'],
    [
      'a dtype that is not there',
      () => ['inspect', testdata('optimum/llama'), '--dtype', 'q4'],
      'MODEL_DTYPE_MISSING',
    ],
    ['a GGUF file that is not there', (at) => ['import', join(at, 'x.gguf'), '--out', join(at, 'out')], ''],
    ['no GGUF file', (at) => ['import', testdata('golden/tiny-llama.json'), '--out', join(at, 'out')], ''],
    [
      'a name that is no model',
      (at) => ['fetch', 'nonsense', '--out', join(at, 'out')],
      'FETCH_NAME_INVALID',
    ],
    [
      'no tokenizer to talk with',
      () => ['chat', testdata('optimum/llama'), '--prompt', 'hi'],
      'CHAT_NOT_LOADABLE',
    ],
  ];

  it.each(cases)('%s: exit code 2, a code, no stack, nothing written', async (_, args, code) => {
    const { code: exit, stdout, stderr } = await cqil(args(dir));
    expect(exit).toBe(2);
    expect(stdout).toBe('');
    expect(stderr).toMatch(/^[A-Z][A-Z0-9_]+: /m);
    expect(stderr).toContain(code);
    expect(stderr).not.toMatch(/INTERNAL|^\s+at /m);
    expect(await readdir(dir)).toEqual([]);
    const json = await cqil([...args(dir), '--json']);
    expect(json.code).toBe(2);
    expect(JSON.parse(json.stdout)).toMatchObject({ error: { code: expect.stringContaining(code) } });
  });

  it('shows the stack to those who ask for it', async () => {
    const { stderr } = await cqil(['inspect', join(dir, 'nowhere')], { env: { CQIL_DEBUG: '1' } });
    expect(stderr).toMatch(/^\s+at /m);
  });
});

describe('stopping the process', () => {
  it('ends with 130 on Ctrl-C in a measurement', async () => {
    const { code, stdout } = await cqil(
      ['bench', testdata('optimum/llama'), '--rounds', '100000', '--json'],
      {
        onStart: (child) => child.stderr?.once('data', () => child.kill('SIGINT')),
      },
    );
    expect(code).toBe(130);
    expect(JSON.parse(stdout)).toMatchObject({ error: { code: 'STOPPED' } });
  });

  it('leaves nothing half-written on Ctrl-C in a download', async () => {
    const server = createServer((_, response) => response.writeHead(200).write('{'));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    try {
      const { code } = await cqil(['fetch', 'org/model', '--out', join(dir, 'out')], {
        env: { HF_ENDPOINT: endpoint, HF_HOME: join(dir, 'hf') },
        onStart: (child) => server.once('request', () => setTimeout(() => child.kill('SIGINT'), 50)),
      });
      expect(code).toBe(130);
      expect(await readdir(dir)).toEqual([]);
    } finally {
      server.closeAllConnections();
      server.close();
    }
  });
});

describe('files with odd names', () => {
  it('are found as they are called', async () => {
    const folder = join(dir, 'm ödel – 1');
    const { cp } = await import('node:fs/promises');
    await cp(testdata('optimum/gpt2'), folder, { recursive: true });
    await writeFile(join(folder, 'notes.txt'), 'side file');
    const { code, stdout } = await cqil(['inspect', folder, '--json']);
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      model: { root: folder, sideFiles: expect.arrayContaining(['notes.txt']) },
    });
  });
});
