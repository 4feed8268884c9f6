// @ts-check
/**
 * A model alone, with drafts before each pass, and with drafts while it computes: milliseconds a token of greedy answers,
 * all contenders interleaved in an order that turns from round to round.
 *
 *   node tools/bench/speculation.mjs <model> <drafting model> [--threads 2] [--draft-threads 1] [--tokens 96]
 *     [--rounds 5] [--max-draft 8] [--json FILE]    (needs a build)
 *
 * `--threads` are those of the machine: a contender that drafts beside gives `--draft-threads` of them to the drafter.
 * What each contender answers is held against the first one's; where it differs, how near the two best logits were there
 * is told, as the first one sees them. Times are medians with their quartiles; a ratio is taken round by round.
 */
import { writeFileSync } from 'node:fs';
import os from 'node:os';
import { parseArgs } from 'node:util';
import { locateModel } from '@cqil/planner';
import { openTextModel } from '@cqil/plugin-openai';
import { DecoderSession, generate, machine, spread } from '@cqil/runtime-gpu';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    threads: { type: 'string', default: '2' },
    'draft-threads': { type: 'string', default: '1' },
    tokens: { type: 'string', default: '96' },
    rounds: { type: 'string', default: '5' },
    'max-draft': { type: 'string', default: '8' },
    json: { type: 'string' },
  },
});
const [folder, drafting] = positionals;
if (folder === undefined || drafting === undefined) {
  console.error(
    'Usage: node tools/bench/speculation.mjs <model> <drafting model> [--threads 2] [--json FILE]',
  );
  process.exit(2);
}
const threads = Number(values.threads);
const beside = Number(values['draft-threads']);
if (!(beside >= 1 && beside < threads)) {
  console.error(`--draft-threads must be from 1 to ${threads - 1}: the rest is the model's.`);
  process.exit(2);
}
const maxTokens = Number(values.tokens);
const maxDraft = Number(values['max-draft']);

const QUESTIONS = {
  'proof-reading':
    'Repeat this text without any change: "The old harbour was busy in the morning. Three boats came in with herring, and the boys carried baskets up the wet steps to the market. By noon the nets were hung up to dry, and the gulls had gone."',
  explanation: 'Explain in a few sentences why the sky is blue.',
  story: 'Write a short story about a lighthouse keeper who finds a letter in a bottle.',
  code: 'Write a JavaScript function that returns the n-th Fibonacci number, and explain it.',
};

const files = await Promise.all([folder, drafting].map(async (place) => (await locateModel(place)).onnxFile));
const [model, drafter] = /** @type {[string, string]} */ (files);

const reader = await openTextModel(folder, { parallel: 1 });
/** @type {Record<string, readonly number[]>} */
const prompts = {};
for (const [name, content] of Object.entries(QUESTIONS)) {
  prompts[name] = await reader.encodeChat([{ role: 'user', content }], {
    signal: new AbortController().signal,
  });
}
await reader.dispose();

/** @typedef {{ model: DecoderSession, speculate?: import('@cqil/runtime-gpu').SpeculateOptions }} Setting */

/** @type {DecoderSession[]} */
const opened = [];
/** @param {string} file @param {number} count */
const open = async (file, count) => {
  const session = await DecoderSession.open(file, { threads: count });
  opened.push(session);
  return session;
};
const whole = await open(model, threads);
const part = await open(model, threads - beside);
const wholeDrafter = await open(drafter, threads);
const partDrafter = await open(drafter, beside);
/** @type {Record<string, Setting>} */
const contenders = {
  [`alone, ${threads} threads`]: { model: whole },
  [`alone, ${threads - beside} threads`]: { model: part },
  'drafts from the prompt': { model: whole, speculate: { drafter: 'prompt' } },
  'drafts before each pass': {
    model: whole,
    speculate: { drafter: wholeDrafter, maxDraft: Math.min(4, maxDraft), adapt: false },
  },
  'drafts beside': {
    model: part,
    speculate: { drafter: partDrafter, asynchronous: true, maxDraft, adapt: false },
  },
  'drafts beside, where they pay': {
    model: part,
    speculate: { drafter: partDrafter, asynchronous: true, maxDraft },
  },
};

try {
  const rows = [];
  for (const [question, promptIds] of Object.entries(prompts)) {
    const runs = Object.entries(contenders).map(([name, setting]) => ({
      name,
      ...setting,
      times: /** @type {number[]} */ ([]),
      /** @type {import('@cqil/runtime-gpu').Generation | undefined} */
      last: undefined,
    }));
    for (let round = -1; round < Number(values.rounds); round++) {
      for (let i = 0; i < runs.length; i++) {
        const run = /** @type {typeof runs[number]} */ (runs[(i + Math.max(0, round)) % runs.length]);
        await new Promise((resolve) => setTimeout(resolve, 30));
        let first = 0;
        run.last = await generate(run.model, {
          promptIds,
          maxTokens,
          ...(run.speculate === undefined ? {} : { speculate: run.speculate }),
          onToken: () => {
            if (first === 0) first = performance.now();
          },
        });
        // The first round warms up, and lets paces learn.
        if (round >= 0) run.times.push((performance.now() - first) / (run.last.ids.length - 1));
      }
    }
    const base = /** @type {typeof runs[number]} */ (runs[0]);
    const expected = /** @type {import('@cqil/runtime-gpu').Generation} */ (base.last).ids;
    for (const { name, times, last } of runs) {
      const ids = last?.ids ?? [];
      const at = ids.findIndex((id, i) => id !== expected[i]);
      const {
        drafted = 0,
        accepted = 0,
        passes = 0,
        plainSteps = 0,
        cancelled,
      } = /** @type {Partial<import('@cqil/runtime-gpu').SpeculationStatistics>} */ (last?.speculation ?? {});
      rows.push({
        question,
        contender: name,
        msPerToken: spread(times),
        speedup: spread(times.map((ms, i) => (base.times[i] ?? Number.NaN) / ms)),
        tokens: ids.length,
        steps: passes + plainSteps,
        drafted,
        accepted,
        ...(cancelled === undefined ? {} : { cancelled }),
        ...(at === -1 ? {} : { differsAt: at, gap: await gapAt([...promptIds, ...expected.slice(0, at)]) }),
      });
    }
    console.error(`${question}: done`);
  }
  const result = {
    machine: machine(),
    load: os.loadavg(),
    model: folder,
    drafter: drafting,
    threads,
    beside,
    rows,
  };
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(result, undefined, 2)}\n`);
  /** @param {{ median: number, q1: number, q3: number }} s */
  const show = (s) => `${s.median.toFixed(2)} (${s.q1.toFixed(2)}–${s.q3.toFixed(2)})`;
  console.table(
    rows.map((row) => ({
      answer: row.question,
      contender: row.contender,
      'ms a token': show(row.msPerToken),
      'times as fast': show(row.speedup),
      'steps for tokens': `${row.steps} for ${row.tokens - 1}`,
      accepted: `${row.accepted} of ${row.drafted}`,
      cancelled: row.cancelled ?? '',
      differs: row.differsAt === undefined ? '' : `at ${row.differsAt}, gap ${row.gap?.toFixed(3)}`,
    })),
  );
} finally {
  await Promise.all(opened.map((session) => session.dispose()));
}

/** How near the two best logits are behind these tokens. @param {readonly number[]} ids */
async function gapAt(ids) {
  const { logits, cache } = await whole.forward({ inputIds: [ids], keep: 'last' });
  cache.dispose();
  const [best = 0, second = 0] = Float32Array.from(logits.data).sort().reverse();
  return best - second;
}
