// @ts-check
/**
 * Generations in a row through a partition, most of them cancelled somewhere, on a tiny model: what they leave behind.
 *
 *   node tools/bench/soak-partition.mjs [--generations 1000] [--seed 5]    (needs a build)
 *
 * Fails where threads, open files or memory grow from the second quarter to the last, or where the model answers otherwise
 * at the end than at the start.
 */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { locateModel, partitionModel, rewriteModel } from '@cqil/planner';
import { generate, generateTokens, openPartitioned, seededRandom } from '@cqil/runtime-gpu';

const { values } = parseArgs({
  options: { generations: { type: 'string', default: '1000' }, seed: { type: 'string', default: '5' } },
});
const total = Number(values.generations);
const random = seededRandom(Number(values.seed));
const fixture = path.resolve(import.meta.dirname, '../../testdata/genai-fp32/llama');
const groups = [
  { layers: [1, 2], bypass: 1 },
  { layers: [3, 4], bypass: 0 },
];
const TOKENS = 16;

const scratch = mkdtempSync(path.join(os.tmpdir(), 'cqil-soak-'));
const count = (/** @type {string} */ folder) =>
  process.platform === 'linux' ? readdirSync(`/proc/self/${folder}`).length : 0;
const held = () => {
  globalThis.gc?.();
  return { threads: count('task'), files: count('fd'), mb: process.memoryUsage.rss() / 1e6 };
};

try {
  const model = path.join(scratch, 'model');
  await rewriteModel(await locateModel(fixture), { version: 1, layers: 6, groups }, model);
  const parts = path.join(scratch, 'parts');
  await partitionModel(await locateModel(model), parts, { devices: ['cpu:0', 'cpu:1'], check: false });
  const opened = await openPartitioned(parts, { pin: false });
  const answer = () => generate(opened, { promptIds: [1, 2, 3], maxTokens: TOKENS });
  const expected = (await answer()).ids;

  let [cancelled, ended] = [0, 0];
  const one = async () => {
    const controller = new AbortController();
    const stop = random() < 0.7 ? Math.floor(random() * TOKENS) : Number.POSITIVE_INFINITY;
    const promptIds = Array.from({ length: 1 + Math.floor(random() * 40) }, () => Math.floor(random() * 500));
    let seen = 0;
    try {
      const tokens = generateTokens(opened, { promptIds, maxTokens: TOKENS, signal: controller.signal });
      for await (const _ of tokens) {
        if (++seen > stop) setTimeout(() => controller.abort(new Error('cancelled')), random() * 2);
      }
      ended += 1;
    } catch (error) {
      if (!String(error).includes('cancelled')) throw error;
      cancelled += 1;
    }
  };

  const rows = [];
  for (let quarter = 1; quarter <= 4; quarter++) {
    for (let i = 0; i < total / 4; i++) await one();
    rows.push({ generations: Math.round((quarter * total) / 4), cancelled, ended, ...held() });
  }
  console.table(rows.map((row) => ({ ...row, mb: row.mb.toFixed(1) })));
  const same = (await answer()).ids.join() === expected.join();
  await opened.dispose();
  const [, second, , last] = rows;
  if (second === undefined || last === undefined) throw new Error('no rows');
  // What the allocator keeps for itself settles in the first half.
  const grown = last.threads > second.threads || last.files > second.files || last.mb - second.mb > 20;
  console.log(grown ? 'something grows' : 'nothing grows', same ? '' : '; the answer changed');
  process.exitCode = grown || !same ? 1 : 0;
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
