// @ts-check
/** The Python packages of the checks in `tools/conformance`, in an environment of their own in the cache. */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { cache, root, run, StepFailure, say } from './steps.mjs';

const requirements = join(root, 'tools/conformance/requirements.txt');
const folder = join(cache, 'python/conformance');
const stamp = join(folder, 'requirements.sha256');

/** Where `setupPython` puts Python. */
export const python = join(folder, process.platform === 'win32' ? 'Scripts/python.exe' : 'bin/python');

/**
 * Makes the environment unless it is there as the requirements say. It has no pip of its own: not every Python can give
 * it one, and it is sooner done without. Packages come built, and are not compiled before they are imported.
 */
export async function setupPython() {
  const wanted = createHash('sha256').update(readFileSync(requirements)).digest('hex');
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted) {
    say(`   ${folder} is there`);
    return;
  }
  rmSync(folder, { recursive: true, force: true });
  const base = await basePython();
  await run(base, ['-m', 'venv', '--without-pip', folder]);
  const words = ['install', '--quiet', '--no-input', '--disable-pip-version-check', '--progress-bar=off'];
  const how = ['--no-deps', '--no-compile', '--only-binary=:all:', '--requirement', requirements];
  await run(base, ['-m', 'pip', '--python', python, ...words, ...how], {
    heartbeat: 'installing Python packages',
  });
  writeFileSync(stamp, wanted);
}

/** The Python with pip that is there; the packages need 3.11 or later. */
async function basePython() {
  const check = 'import pip, sys; sys.exit(sys.version_info < (3, 11))';
  for (const name of ['python3', 'python']) {
    const { code } = await run(name, ['-c', check], { allowFailure: true, silent: true }).catch(() => ({
      code: 1,
    }));
    if (code === 0) return name;
  }
  throw new StepFailure('The checks with clients in Python need Python 3.11 or later, with pip.');
}
