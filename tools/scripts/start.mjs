// @ts-check
/**
 * `npm start`: the whole way on a real model, from nothing: packages, build, model, probe, plan, rewrite, check,
 * and the original beside the planned model in numbers and in words. Every step is a command anyone can run.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { build, cache, cqil, cqilJson, install, say, script, step } from './steps.mjs';

/** Where the first pass over the layers is not to be touched: early layers cost most (see the README). */
const PLAN = ['--threshold', '0.94', '--group-size', '2', '--bypass', '1', '--start', '12'];
const PROMPT = 'Explain in two sentences why the sky is blue.';

const folder = join(cache, 'demo');
const files = {
  probe: join(folder, 'probe.json'),
  plan: join(folder, 'plan.json'),
  planned: join(folder, 'smollm2-135m-instruct-cqil'),
};

await script(async () => {
  await step('Packages', install);
  await step('Build', build);
  // Only now is there anything to import that is not part of node.
  const { imports, setupModel } = await import('./setup-model.mjs');
  const { writeTexts } = await import('./texts.mjs');
  mkdirSync(folder, { recursive: true });
  const original = imports.source;

  await step('Model: SmolLM2 135M Instruct, its 4-bit weights as they are', () => setupModel(['source']));
  await step('What is in it', () => shown('inspect', original));
  const texts = writeTexts();
  await step('Probe: how alike are the inputs of its layers?', () =>
    shown('probe', original, '--text', ...texts.calibration, '--tokens', '2048', '--out', files.probe),
  );
  await step('Plan: which layers run at the same time?', () =>
    shown('plan', original, '--probe', files.probe, ...PLAN, '--out', files.plan),
  );
  await step('Rewrite', () =>
    shown('rewrite', original, '--plan', files.plan, '--out', files.planned, '--force'),
  );
  const report = await step('Verify, and judge by text that the probe did not see', () =>
    cqilJson(['verify', original, files.planned, '--text', ...texts.evaluation, '--tokens', '1024']),
  );
  const timing = await step('Time, in turn', () => cqilJson(['bench', original, files.planned]));
  /** @param {string} model */
  const say80 = (model) => cqilJson(['chat', model, '--prompt', PROMPT, '--max-tokens', '80']);
  const answers = await step('Talk, through Transformers.js', async () => [
    await say80(original),
    await say80(files.planned),
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
 * @param {{ plan: { layers: number, groups: { layers: number[] }[] }, quality: any }} report
 * @param {{ models: [Timing, Timing], settings: { promptTokens: number, repeats: number } }} timing
 * @param {{ text: string }[]} answers
 */
function summary({ plan, quality }, { models: [before, after], settings }, [first, second]) {
  const steps = plan.layers - plan.groups.reduce((saved, { layers }) => saved + layers.length - 1, 0);
  const rows = [
    ['', 'original', 'CQIL', 'change'],
    ['sequential layers', String(plan.layers), String(steps), percent(steps / plan.layers)],
    [
      `perplexity, held-out text (${quality.tokens} tokens)`,
      quality.a.perplexity.toFixed(2),
      quality.b.perplexity.toFixed(2),
      percent(quality.ratio),
    ],
    ['same best token as the original', '', `${(quality.top1Agreement * 100).toFixed(1)} %`, ''],
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
