// @ts-check
/**
 * `npm test`: everything from a fresh clone: packages, build, types, the model, tests, and the packages as a
 * user gets them. Exits with 1 when anything failed, after everything was run.
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { resultFile, sum, vitestCounts, writeCounts } from './results.mjs';
import { setupPython } from './setup-python.mjs';
import { build, install, nx, root, run, say, script, step } from './steps.mjs';

/** @param {string} project */
async function vitest(project) {
  const file = resultFile(`vitest-${project}`);
  rmSync(file, { force: true });
  const words = [
    'run',
    '--project',
    project,
    '--reporter=default',
    '--reporter=json',
    `--outputFile.json=${file}`,
  ];
  const bin = join(root, 'node_modules/vitest/vitest.mjs');
  const { code } = await run(process.execPath, [bin, ...words], { allowFailure: true });
  return vitestCounts(file, code);
}

async function types() {
  const { code } = await nx(['run-many', '-t', 'typecheck', '--output-style=static'], { allowFailure: true });
  return code === 0 ? { passed: 1, failed: 0 } : { passed: 0, failed: 1, failures: ['types'] };
}

await script(async () => {
  writeCounts('test', { passed: 0, failed: 1, failures: ['npm test did not come to its end'] });
  // Downloads go on beside what computes. What goes wrong is told by the tests that need it, which try again.
  const python = setupPython().catch(() => {});
  await step('Packages', install);
  await step('Build', build);
  // Only now is there anything to import that is not part of node.
  const { setupModel } = await import('./setup-model.mjs');
  await step('Model', () => setupModel(['fp32', 'source']));
  const counts = [
    await step('Types', types),
    await step('Tests beside the code', () => vitest('unit')),
    await step('Tests of the command line', () => vitest('e2e')),
    await step('Tests with the real model', () => python.then(() => vitest('model'))),
    await step('Packages as a user gets them', () => vitest('release')),
  ];
  const all = sum(counts);
  writeCounts('test', all);
  for (const failure of all.failures ?? []) say(`failed: ${failure}`);
  say(`${all.passed} passed, ${all.failed} failed`);
  if (all.failed > 0) process.exitCode = 1;
});
