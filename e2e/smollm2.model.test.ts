import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { testModel } from '../tools/src/test-model.js';
import { cqil } from './run.js';

let dir: string;
const at = (name: string): string => join(dir, name);
const original = testModel('q4');

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'cqil-model-'));
  const words =
    'The keeper wrote down the weather every evening, and the ships that passed, and what they carried. ';
  await writeFile(at('text.txt'), words.repeat(40));
});
afterAll(() => rm(dir, { recursive: true }));

async function well(...args: string[]): Promise<Record<string, unknown>> {
  const { code, stdout, stderr } = await cqil([...args, '--json']);
  expect(code, stderr).toBe(0);
  return JSON.parse(stdout) as Record<string, unknown>;
}

describe('SmolLM2 from the command line', () => {
  it('is imported from its GGUF file, and nothing is left of an import that is stopped', async () => {
    const { code } = await cqil(['import', testModel('gguf'), '--out', at('stopped'), '--dtype', 'fp32'], {
      onStart: (child) =>
        child.stderr?.on('data', (text: string) => {
          if (text.includes('writing')) child.kill('SIGINT');
        }),
    });
    expect(code).toBe(130);
    expect(await readdir(dir)).toEqual(['text.txt']);
    await well('import', testModel('gguf'), '--out', at('imported'));
    expect(await well('inspect', at('imported'))).toMatchObject({
      layers: { length: 30 },
      model: { dtype: 'q4' },
    });
  });

  it('is probed, planned by what was measured, rewritten, and verified with text', async () => {
    const probe = await well(
      'probe',
      original,
      '--text',
      at('text.txt'),
      '--tokens',
      '256',
      '--out',
      at('probe.json'),
    );
    expect(probe).toMatchObject({ layers: 30, tokens: 255 });
    const plan = ['plan', original, '--probe', at('probe.json'), '--threshold', '0.9', '--start', '12'];
    await well(...plan, '--group-size', '2', '--bypass', '1', '--out', at('plan.json'));
    await well('rewrite', original, '--plan', at('plan.json'), '--out', at('planned'));
    const report = await well('verify', original, at('planned'), '--text', at('text.txt'), '--tokens', '128');
    expect(report).toMatchObject({ ok: true, quality: { kinds: [{ tokens: 127 }] } });
  });

  it('answers, the same each time, and says so to programs', async () => {
    const ask = ['chat', at('planned'), '--prompt', 'Name one planet.', '--max-tokens', '8'];
    const { text, tokens } = await well(...ask);
    expect(text).not.toBe('');
    expect(tokens).toBeGreaterThan(0);
    const { code, stdout } = await cqil(ask);
    expect(code).toBe(0);
    expect(stdout).toBe(`${text}\n`);
    const drawn = await Promise.all([7, 7].map((seed) => well(...ask, '--seed', String(seed))));
    expect(drawn[0]?.text).toBe(drawn[1]?.text);
  });

  it('talks until the end of the input, and stops when it is told to', async () => {
    const { code, stdout } = await cqil(['chat', original, '--max-tokens', '6'], {
      input: 'Say hello.\nAnd goodbye.\n',
    });
    expect(code).toBe(0);
    expect(stdout.trim().split('\n').length).toBeGreaterThanOrEqual(2);
    const stopped = await cqil(
      ['chat', original, '--prompt', 'Count to a thousand.', '--max-tokens', '2000'],
      {
        onStart: (child) => child.stdout?.once('data', () => child.kill('SIGINT')),
      },
    );
    expect(stopped.code).toBe(130);
  });
});
