import { fileURLToPath } from 'node:url';
import { main } from '../main.js';

/** Runs the command line inside the test's process and catches what it writes. */
export async function cqil(...argv: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const written = { stdout: '', stderr: '' };
  const sink = (name: 'stdout' | 'stderr') => ({
    write: (text: string) => {
      written[name] += text;
    },
  });
  const code = await main(argv, { stdout: sink('stdout'), stderr: sink('stderr'), env: {} });
  return { code, ...written };
}

/** A fixture's path. */
export function testdata(path: string): string {
  return fileURLToPath(new URL(`../../../../testdata/${path}`, import.meta.url));
}
