// @ts-check
/**
 * `npm start`: the whole way on a real model, from nothing: packages, build, model, costs of its groups of layers,
 * search, recovery, check, judgement, and the original beside the planned model in numbers and in words. Every step is
 * a command anyone can run.
 */
import { mkdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { build, cache, cqil, cqilJson, install, root, say, script, step } from './steps.mjs';

const STEPS = '24';
const PROMPT = 'Explain in two sentences why the sky is blue.';

const folder = join(cache, 'demo');
const planned = join(folder, 'smollm2-135m-instruct-cqil');

await script(async () => {
  await step('Packages', install);
  await step('Build', build);
  // Only now is there anything to import that is not part of node.
  const { imports, setupModel } = await import('./setup-model.mjs');
  const { writeTexts } = await import('./texts.mjs');
  mkdirSync(folder, { recursive: true });
  const original = relative(root, imports.source);
  const out = relative(root, planned);

  await step('Model: SmolLM2 135M Instruct, its 4-bit weights as they are', () => setupModel(['source']));
  await step('What is in it', () => shown('inspect', original));
  const texts = writeTexts();
  /** @param {string[]} files */
  const here = (files) => files.map((file) => relative(root, file));
  await step(
    'Optimise: measure the groups, search a plan, repair, check, and judge by text of other origin',
    () =>
      shown(
        ...['optimize', original, '--max-steps', STEPS, '--effort', 'quick', '--force', '--restart'],
        ...['--text', ...here(texts.calibration), '--eval-text', ...here(texts.evaluation), '--out', out],
      ),
  );
  const report = JSON.parse(readFileSync(join(planned, 'cqil.report.json'), 'utf8'));
  const timing = await step('Time, in turn', () => cqilJson(['bench', original, out]));
  /** @param {string} model */
  const say80 = (model) => cqilJson(['chat', model, '--prompt', PROMPT, '--max-tokens', '80']);
  const answers = await step('Talk, through Transformers.js', async () => [
    await say80(original),
    await say80(out),
  ]);
  process.stdout.write(`\n${summary(report, timing, answers)}\n`);
});

/** @param {string[]} words */
async function shown(...words) {
  say(`   cqil ${words.map((word) => (/[^\w./=-]/.test(word) ? JSON.stringify(word) : word)).join(' ')}`);
  await cqil(words);
}

/**
 * @typedef {{ median: number, q1: number, q3: number }} Spread
 * @typedef {{ prefillMs: Spread, decodeMs: Spread, prefillRatio: Spread, decodeRatio: Spread }} Timing
 * @typedef {{ kind: string, perplexity: number, excess: number, top1: number }} Kind
 * @typedef {{ id: string, steps: number, excess: number, kinds: Kind[] }} Row
 * @param {{ model: { layers: number }, evaluation: { rows: Row[] } }} report
 * @param {{ models: [Timing, Timing], settings: { promptTokens: number, repeats: number } }} timing
 * @param {{ text: string }[]} answers
 */
function summary({ model, evaluation }, { models: [before, after], settings }, [first, second]) {
  /** @param {string} id */
  const row = (id) => evaluation.rows.find((one) => one.id === id);
  const [original, plain, ours] = [row('original'), row('ours'), row('ours-recovered')];
  const skipped = row('skip-influence');
  if (original === undefined || plain === undefined || ours === undefined)
    throw new Error('the report lacks rows');
  const rows = [
    ['', 'original', 'CQIL', 'change'],
    ['sequential layers', String(model.layers), String(ours.steps), percent(ours.steps / model.layers)],
    ...ours.kinds.map((kind, i) => [
      `perplexity, ${kind.kind}`,
      original.kinds[i]?.perplexity.toFixed(2) ?? '',
      kind.perplexity.toFixed(2),
      percent(1 + kind.excess),
    ]),
    ['perplexity, mean of the kinds', '', '', percent(1 + ours.excess)],
    ['  the same plan without repair', '', '', percent(1 + plain.excess)],
    ...(skipped === undefined
      ? []
      : [['  as many layers left out instead', '', '', percent(1 + skipped.excess)]]),
    [
      `prefill of ${settings.promptTokens} tokens, ms`,
      time(before.prefillMs),
      time(after.prefillMs),
      sign(after.prefillRatio),
    ],
    ['decode of one token, ms', time(before.decodeMs), time(after.decodeMs), sign(after.decodeRatio)],
  ];
  return [
    table(rows),
    '',
    `Times: median (first to third quartile) of ${settings.repeats} rounds, both models in turn on this machine's CPU;`,
    'change: median of the ratios within a round. On one CPU branches have nothing to run beside each other on,',
    'so no gain is to be expected here; the gain needs several devices or a device that is not yet full.',
    '',
    `> ${PROMPT}`,
    `original: ${first?.text}`,
    `CQIL:     ${second?.text}`,
    '',
    `The whole report: ${relative(root, join(planned, 'cqil.report.html'))}`,
  ].join('\n');
}

/** @param {Spread} spread */
function time({ median, q1, q3 }) {
  return `${median.toFixed(1)} (${q1.toFixed(1)}–${q3.toFixed(1)})`;
}

/** Within the spread there is no sign to tell. @param {Spread} ratio */
function sign({ median, q1, q3 }) {
  if (q1 <= 1 && q3 >= 1) return `${percent(median)} (within the spread)`;
  return `${percent(median)} (${median < 1 ? 'faster' : 'slower'})`;
}

/** @param {number} ratio */
function percent(ratio) {
  return `${ratio >= 1 ? '+' : '−'}${Math.abs((ratio - 1) * 100).toFixed(1)} %`;
}

/** @param {string[][]} rows */
function table(rows) {
  const widths = rows[0]?.map((_, i) => Math.max(...rows.map((row) => row[i]?.length ?? 0))) ?? [];
  return rows
    .map((row) =>
      row
        .map((cell, i) => cell.padEnd(widths[i] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}
