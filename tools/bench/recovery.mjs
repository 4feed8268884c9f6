// @ts-check
/**
 * What recovery gives, and by which matrices: a plan's excess perplexity by kind of text, as it is and refitted with
 * each choice of matrices, on text that no fit has seen. All in one run against one original.
 *
 *   node tools/bench/recovery.mjs <model folder> [--start 12] [--end 28] [--group-size 2] [--bypass 1]
 *     [--tokens 49152] [--roles down gate-up,down qkv,gate-up,down] [--json]    (needs a build)
 */
import { parseArgs } from 'node:util';
import { sequentialSteps, uniformPlan } from '@cqil/core';
import {
  analyze,
  evaluateKinds,
  loadTokenizer,
  locateModel,
  openTextSets,
  openVariant,
  Reference,
  readModel,
  recover,
  rewriteBranches,
} from '@cqil/planner';
import { DecoderSession } from '@cqil/runtime-gpu';
import { writeTexts } from '../scripts/texts.mjs';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    start: { type: 'string', default: '12' },
    end: { type: 'string', default: '28' },
    'group-size': { type: 'string', default: '2' },
    bypass: { type: 'string', default: '1' },
    tokens: { type: 'string', default: '49152' },
    roles: { type: 'string', multiple: true, default: ['down', 'gate-up,down', 'qkv,gate-up,down'] },
    json: { type: 'boolean', default: false },
  },
});
const [folder] = positionals;
if (folder === undefined) {
  console.error('Usage: node tools/bench/recovery.mjs <model folder> [options]');
  process.exit(2);
}

const source = await locateModel(folder);
const model = await readModel(source.onnxFile);
const anatomy = analyze(model);
const texts = writeTexts();
const sets = await openTextSets(await loadTokenizer(source.root), {
  texts: texts.calibration,
  evaluationTexts: [...texts.evaluation, texts.otherLanguage],
  tokens: { calibration: Number(values.tokens), development: 12288, evaluation: 24576 },
});
/** @param {import('@cqil/planner').TextSet} set */
const windows = (set) => set.kinds.flatMap((kind) => kind.windows);
const evaluation = await sets.openEvaluation();
const plan = uniformPlan({
  layers: anatomy.layers.length,
  groupSize: Number(values['group-size']),
  start: Number(values.start),
  end: Number(values.end),
  bypass: values.bypass === 'full' ? 'full' : Number(values.bypass),
});

const original = new DecoderSession(await openVariant(model));
const reference = new Reference(original);
const rows = [await row('as it is', model, 0)];
for (const roles of values.roles) {
  const start = performance.now();
  const { model: repaired } = await recover(model, anatomy, plan, {
    calibration: windows(sets.calibration),
    development: windows(sets.development),
    roles: /** @type {import('@cqil/planner').MapRole[]} */ (roles.split(',')),
    onProgress: ({ done, total }) => process.stderr.write(`\r${roles}: ${done} of ${total}   `),
  });
  rows.push(await row(roles, repaired, (performance.now() - start) / 1000));
}
await original.dispose();

if (values.json) console.log(JSON.stringify({ plan, tokens: sets.calibration.tokens, rows }, null, 2));
else {
  console.log(
    `\n${sequentialSteps(plan)} steps, fitted on ${sets.calibration.tokens} tokens; excess perplexity:`,
  );
  for (const { name, kinds, excess, seconds } of rows) {
    const cells = kinds.map((kind) => `${kind.kind} ${(100 * kind.excess).toFixed(1)} %`);
    console.log(
      `${name}: ${cells.join(', ')}; mean of all but the last ${(100 * excess).toFixed(1)} % (${seconds.toFixed(0)} s)`,
    );
  }
}

/** @param {string} name @param {import('@cqil/planner').Model} of @param {number} seconds */
async function row(name, of, seconds) {
  const decoder = new DecoderSession(await openVariant(rewriteBranches(of, plan).model));
  try {
    const { kinds } = await evaluateKinds(reference, decoder, evaluation);
    const counted = kinds.slice(0, texts.evaluation.length);
    const excess = Math.expm1(
      counted.reduce((sum, kind) => sum + Math.log1p(kind.excess), 0) / counted.length,
    );
    return { name, kinds, excess, seconds };
  } finally {
    await decoder.dispose();
  }
}
