// @ts-check
/** What the README tells a newcomer, one after the other, and how many checks passed. */
import { sum, takeCounts } from './results.mjs';
import { npm, run, step } from './steps.mjs';

/** @param {string} title @param {string[]} words */
async function check(title, ...words) {
  const { code } = await step(title, () => run(...npm(...words), { allowFailure: true, heartbeat: title }));
  return code === 0 ? { passed: 1, failed: 0 } : { passed: 0, failed: 1, failures: [title] };
}

/** @type {import('./results.mjs').Counts[]} */
const counts = [
  await check('npm ci', 'ci'),
  await check('npm run build', 'run', 'build'),
  await check('npm run lint', 'run', 'lint'),
];
await step('npm test', () => run(...npm('test'), { allowFailure: true }));
counts.push(takeCounts('test'));

const { passed, failed, failures = [] } = sum(counts);
for (const failure of failures) process.stdout.write(`failed: ${failure}\n`);
process.exitCode = failed > 0 ? 1 : 0;
process.stdout.write(`${passed} passed, ${failed} failed\n`);
