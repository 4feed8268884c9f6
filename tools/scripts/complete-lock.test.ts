import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { completeLock, platformOf } from './complete-lock.mjs';
import { root } from './steps.mjs';

describe('completing the lock file', () => {
  it.each([
    ['@biomejs/cli-linux-x64-musl', { os: ['linux'], cpu: ['x64'], libc: ['musl'] }],
    ['@rollup/rollup-linux-arm-gnueabihf', { os: ['linux'], cpu: ['arm'], libc: ['glibc'] }],
    ['@nx/nx-win32-arm64-msvc', { os: ['win32'], cpu: ['arm64'] }],
    ['@nx/nx-darwin-arm64', { os: ['darwin'], cpu: ['arm64'] }],
    ['@emnapi/core', undefined],
  ])('reads the platform of %s', (name, platform) => {
    expect(platformOf(name)).toEqual(platform);
  });

  it('adds what is missing where npm would put it, and nothing twice', () => {
    const tool = {
      version: '1.0.0',
      dev: true,
      optionalDependencies: { '@t/t-darwin-x64': '1.0.0', '@t/t-linux-x64': '1.0.0' },
    };
    const packages = {
      'node_modules/t': tool,
      'node_modules/t/node_modules/@t/t-linux-x64': { version: '1.0.0' },
    };
    const { lock, added } = completeLock({ packages });
    expect(added).toEqual(['@t/t-darwin-x64']);
    expect(lock.packages['node_modules/@t/t-darwin-x64']).toEqual({
      version: '1.0.0',
      cpu: ['x64'],
      dev: true,
      optional: true,
      os: ['darwin'],
    });
    expect(completeLock(lock).added).toEqual([]);
  });

  it("finds nothing to add to this repository's", () => {
    expect(completeLock(JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8'))).added).toEqual([]);
  });
});
