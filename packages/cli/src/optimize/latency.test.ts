import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { OptimizeReport } from '@cqil/planner';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { modelFolder, textFiles } from '../../../planner/src/optimize/testing/fixtures.js';
import { cqil } from '../test/run.js';
import { profileFolder } from './latency.js';

let dir: string;
let model: string;
let common: string[];
let front: string;
let profile: string;

/** Products that cost something, and devices that exchange for next to nothing. */
const device = (id: string) => ({
  id,
  kind: 'cpu',
  memoryBytes: 1e12,
  peakFlops: { float32: 1e9 },
  computeEfficiency: 1,
  memoryBytesPerSecond: 1e9,
  memoryEfficiency: [{ bytes: 1, share: 1 }],
  launch: 'serial',
  launchSeconds: 1e-6,
  kernelSeconds: 0,
  runSeconds: 0,
});

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'cqil-latency-'));
  model = await modelFolder('genai-fp32/llama', join(dir, 'model'));
  const texts = await textFiles(join(dir, 'texts'));
  const amounts = ['--tokens', '800', '--development-tokens', '160', '--evaluation-tokens', '64'];
  common = [
    ...['--text', ...texts, ...amounts, '--search-tokens', '64', '--window', '32', '--budget', '2'],
    ...['--effort', 'quick', '--baselines', 'none', '--no-recover', '--json'],
  ];
  profile = join(dir, 'cpu.json');
  const links = [
    {
      between: 'all',
      bytesPerSecond: 1e9,
      protocols: [{ baseSeconds: 1e-7, hopSeconds: 0, share: 1 }],
    },
  ];
  const devices = ['all', 'cpu:0', 'cpu:1'].map(device);
  await writeFile(profile, JSON.stringify({ version: 1, name: 'made up', devices, links }));
  front = join(dir, 'front');
  const { code } = await cqil('optimize', model, '--max-steps', '4', ...common, '--out', front);
  expect(code).toBe(0);
}, 180_000);
afterAll(() => rm(dir, { recursive: true }));

const optimize = (...argv: string[]) =>
  cqil('optimize', model, ...argv, ...common, '--out', join(dir, `out-${argv.join('').length}`));
const plan = (...argv: string[]) =>
  cqil('plan', model, '--front', front, ...argv, '--out', join(dir, 'plan.json'));

describe('cqil optimize --target-speedup', () => {
  it('takes what is predicted of branches on devices', async () => {
    const { code, stdout } = await optimize(
      ...['--target-speedup', '1.3x', '--profile', profile, '--devices', 'cpu:0,cpu:1'],
    );
    expect(code).toBe(0);
    const { report } = JSON.parse(stdout) as { report: OptimizeReport };
    expect(report.target).toMatch(/^1.3 times as fast, predicted by .*made up; branches on cpu:0, cpu:1/);
    const [, speedup] = /Predicted to be (\d\.\d\d) times/.exec(report.notes.at(-1) ?? '') ?? [];
    expect(Number(speedup)).toBeGreaterThanOrEqual(1.3);
    expect(report.command).toContain('--devices cpu:0,cpu:1');
  }, 180_000);

  it('refuses what branches in one session cannot give, and says what can', async () => {
    const { code, stdout } = await optimize('--target-speedup', '1.3x', '--profile', profile);
    expect(code).toBe(2);
    const { error } = JSON.parse(stdout);
    expect(error).toMatchObject({ code: 'TARGET_UNREACHABLE', found: expect.stringContaining('no plan') });
    expect(error.hint).toMatch(/--form wide.*--devices cpu:0,cpu:1/);
  });

  it.each([
    [['--target-speedup', '1.2x', '--devices', 'cpu:0,cpu:1'], 'OPTION_INVALID'],
    [['--max-steps', '4', '--profile', 'cpu.json'], 'OPTIMIZE_TARGET'],
  ])('refuses %j', async (argv, expected) => {
    const { code, stdout } = await optimize(...argv);
    expect([code, JSON.parse(stdout).error.code]).toEqual([2, expected]);
  });
});

describe('cqil plan --front --target-speedup', () => {
  it('says by what the speed-up was read', async () => {
    const steps = await plan('--target-speedup', '1.2x');
    expect(steps.code).toBe(0);
    expect(steps.stderr + steps.stdout).toContain('read as layers over steps: no --profile was given');
    const devices = ['--profile', profile, '--devices', 'cpu:0', '--devices', 'cpu:1'];
    const predicted = await plan('--target-speedup', '1.1x', ...devices);
    expect(predicted.code).toBe(0);
    expect(predicted.stderr + predicted.stdout).toMatch(
      /predicted: 1\.\d\d times as fast, by the latency model/,
    );
    const chosen = JSON.parse(await readFile(join(dir, 'plan.json'), 'utf8'));
    expect(chosen.groups.length).toBeGreaterThan(0);
  });

  it('refuses what none of them reaches', async () => {
    const { code, stdout } = await plan('--target-speedup', '1.1x', '--profile', profile, '--json');
    expect(code).toBe(2);
    expect(JSON.parse(stdout).error).toMatchObject({ code: 'TARGET_UNREACHABLE' });
    const unread = await plan('--steps', '4', '--profile', profile, '--json');
    expect(JSON.parse(unread.stdout).error).toMatchObject({ code: 'PLAN_OPTIONS' });
  });
});

it('keeps profiles where each system keeps such', () => {
  expect(profileFolder({ XDG_CACHE_HOME: '/x' }, 'linux')).toBe(join('/x', 'cqil', 'profiles'));
  expect(profileFolder({ LOCALAPPDATA: '/local' }, 'win32')).toBe(join('/local', 'cqil', 'profiles'));
  expect(profileFolder({}, 'linux')).toMatch(/\.cache.cqil.profiles$/);
  expect(profileFolder({}, 'darwin')).toMatch(/Caches.cqil.profiles$/);
});
