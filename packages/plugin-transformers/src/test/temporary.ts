import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach } from 'vitest';

/** The repository's fixtures. */
export const TESTDATA = fileURLToPath(new URL('../../../../testdata/', import.meta.url));

const made: string[] = [];

afterEach(() => {
  for (const folder of made.splice(0)) rmSync(folder, { recursive: true, force: true });
});

/** An empty folder that is removed after the test. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'cqil-plugin-'));
  made.push(folder);
  return folder;
}

/** A copy of a fixture, in a folder that is removed after the test. */
export function copyOfFixture(name: string): string {
  const folder = join(temporaryFolder(), 'model');
  cpSync(join(TESTDATA, name), folder, { recursive: true });
  return folder;
}
