// @ts-check
/**
 * Tokens a second of one stream, and of several that share their steps, as the server runs them (`openTextModel`). Both take
 * turns in one run.
 *
 *   node tools/bench/batching.mjs <model> [--streams 8] [--tokens 64] [--rounds 5] [--threads N]    (needs a build)
 */
import { parseArgs } from 'node:util';
import { openTextModel } from '@cqil/plugin-openai';
import { machine, spread } from '@cqil/runtime-gpu';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    streams: { type: 'string', default: '8' },
    tokens: { type: 'string', default: '64' },
    rounds: { type: 'string', default: '5' },
    threads: { type: 'string' },
  },
});
const [folder] = positionals;
if (folder === undefined) {
  console.error(
    'Usage: node tools/bench/batching.mjs <model> [--streams 8] [--tokens 64] [--rounds 5] [--threads N]',
  );
  process.exit(2);
}
const streams = Number(values.streams);
const maxTokens = Number(values.tokens);
const session = values.threads === undefined ? {} : { session: { threads: Number(values.threads) } };
const model = await openTextModel(folder, { parallel: streams, ...session });
const { signal } = new AbortController();
// No stream ends before the others.
const logitBias = new Map([[2, -100]]);

/** Tokens a second from the first token of all to the last of all, prompts not counted. @param {number} count */
async function rate(count) {
  const prompts = await Promise.all(
    Array.from({ length: count }, (_, i) => model.encode(`${i + 1}. Once upon a time there was a`)),
  );
  let started = 0;
  let began = 0;
  let tokens = 0;
  await Promise.all(
    prompts.map(async (promptIds, i) => {
      const request = { promptIds, maxTokens, temperature: 0, topP: 1, seed: i, logitBias, signal };
      let first = true;
      for await (const piece of model.generate(request)) {
        if (piece.tokens === 0) continue;
        if (began > 0) tokens += piece.tokens;
        if (first && ++started === count) began = performance.now();
        first = false;
      }
    }),
  );
  return (tokens * 1000) / (performance.now() - began);
}

/** @type {Record<'one' | 'several', number[]>} */
const rates = { one: [], several: [] };
await rate(1);
await rate(streams);
for (let round = 0; round < Number(values.rounds); round++) {
  const one = async () => rates.one.push(await rate(1));
  const several = async () => rates.several.push(await rate(streams));
  for (const run of round % 2 === 0 ? [one, several] : [several, one]) await run();
}
await model.dispose();
const ratios = rates.several.map((several, i) => several / (rates.one[i] ?? Number.NaN));
console.log(JSON.stringify(machine()));
for (const [name, numbers] of Object.entries({
  'one stream, tokens/s': rates.one,
  [`${streams} streams`]: rates.several,
  ratio: ratios,
})) {
  const { median, q1, q3 } = spread(numbers);
  console.log(`${name.padEnd(24)}${median.toFixed(2)} (${q1.toFixed(2)}–${q3.toFixed(2)})`);
}
