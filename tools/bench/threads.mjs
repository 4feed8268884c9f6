// @ts-check
/**
 * Threads that look for work between two runs beside threads that rest: milliseconds a token of one session, and a pair of
 * tokens of two sessions in turn, as a model and its drafter have them. Both settings take turns in one run.
 *
 *   node tools/bench/threads.mjs <model> [<other model>] [--threads N] [--contexts 128,2048] [--tokens 32] [--rounds 7]
 *     (needs a build)
 */
import os from 'node:os';
import { parseArgs } from 'node:util';
import { locateModel } from '@cqil/planner';
import { argmax, DecoderSession, machine, spread } from '@cqil/runtime-gpu';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    threads: { type: 'string', default: String(os.availableParallelism()) },
    contexts: { type: 'string', default: '128,2048' },
    tokens: { type: 'string', default: '32' },
    rounds: { type: 'string', default: '7' },
  },
});
const [folder, other] = positionals;
if (folder === undefined) {
  console.error('Usage: node tools/bench/threads.mjs <model> [<other model>] [--threads N] [--rounds 7]');
  process.exit(2);
}
const tokens = Number(values.tokens);
const SETTINGS = { 'look for work': '0', rest: '1' };

/** @param {string} place */
const opened = async (place) => {
  const { onnxFile } = await locateModel(place);
  const open = (/** @type {string} */ stop) =>
    DecoderSession.open(onnxFile, {
      threads: Number(values.threads),
      config: { 'session.force_spinning_stop': stop },
    });
  return Object.fromEntries(
    await Promise.all(Object.entries(SETTINGS).map(async ([name, stop]) => [name, await open(stop)])),
  );
};
const models = await opened(folder);
const others = other === undefined ? undefined : await opened(other);

/**
 * Milliseconds from step to step of these sessions in turn, each on a sequence of its own.
 *
 * @param {DecoderSession[]} sessions
 * @param {number} context
 */
async function decode(sessions, context) {
  const prompt = Array.from({ length: context }, (_, i) => (i * 7919) % 20_000);
  const states = [];
  for (const session of sessions) {
    const { cache, logits } = await session.forward({
      inputIds: [prompt],
      keep: 'last',
      capacity: context + tokens,
    });
    states.push({ session, cache, into: new Float32Array(logits.dims[2]) });
  }
  const began = performance.now();
  for (let i = 0; i < tokens; i++) {
    for (const state of states) {
      const { session, cache, into } = state;
      const result = await session.forward({ inputIds: [[i + 5]], cache, keep: 'last', into });
      state.cache = result.cache;
      argmax(result.logits.data);
    }
  }
  const ms = (performance.now() - began) / tokens;
  for (const { cache } of states) cache.dispose();
  return ms;
}

/** @type {Record<string, number[]>} */
const times = {};
try {
  for (const context of values.contexts.split(',').map(Number)) {
    for (let round = -1; round < Number(values.rounds); round++) {
      const names = Object.keys(SETTINGS);
      for (const name of round % 2 === 0 ? names : names.toReversed()) {
        const ways = {
          'one session': [models[name]],
          ...(others ? { 'two in turn': [models[name], others[name]] } : {}),
        };
        for (const [way, sessions] of Object.entries(ways)) {
          await new Promise((resolve) => setTimeout(resolve, 50));
          const ms = await decode(sessions, context);
          const key = `${way}, context ${context}, threads ${name}`;
          times[key] ??= [];
          // The first round warms up.
          if (round >= 0) times[key].push(ms);
        }
      }
    }
  }
} finally {
  const sessions = [...Object.values(models), ...Object.values(others ?? {})];
  await Promise.all(sessions.map((session) => session.dispose()));
}
console.log(JSON.stringify(machine()));
console.table(
  Object.entries(times).map(([what, ms]) => {
    const { median, q1, q3 } = spread(ms);
    return { what, 'ms a step': `${median.toFixed(2)} (${q1.toFixed(2)}–${q3.toFixed(2)})` };
  }),
);
