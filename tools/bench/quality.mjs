// @ts-check
/**
 * The table of the documentation: `cqil optimize` for several numbers of steps, one after the other, groups' costs
 * measured once, each beside the baselines. Prints a Markdown table; what each run found lies in its folder.
 *
 *   node tools/bench/quality.mjs <model folder> --out <folder> [--steps 26 22 18] [further options of cqil optimize]
 */
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { cqil } from '../scripts/steps.mjs';
import { writeTexts } from '../scripts/texts.mjs';

const [folder, ...rest] = process.argv.slice(2);
const out = option('--out')[0];
const wanted = option('--steps');
if (folder === undefined || out === undefined) {
  console.error('Usage: node tools/bench/quality.mjs <model folder> --out <folder> [--steps 26 22 18]');
  process.exit(2);
}
const steps = wanted.length > 0 ? wanted : ['26', '22', '18'];
const texts = writeTexts();
mkdirSync(out, { recursive: true });
/** @type {string | undefined} */
let costs;
const reports = [];
for (const count of steps) {
  const target = join(out, `${count}-steps`);
  if (!existsSync(join(target, 'cqil.report.json'))) {
    await cqil([
      ...['optimize', folder, '--max-steps', count, '--text', ...texts.calibration],
      ...['--eval-text', ...texts.evaluation, '--beside-text', texts.otherLanguage, '--out', target],
      ...(costs === undefined ? [] : ['--costs', costs]),
      ...rest,
    ]);
  }
  costs = join(target, 'cqil.costs.json');
  reports.push(JSON.parse(readFileSync(join(target, 'cqil.report.json'), 'utf8')));
}

/** @type {string[]} */
const kinds = reports[0].evaluation.kinds;
console.log(`| steps | model | ${kinds.join(' | ')} | mean |`);
console.log(`| --- | --- | ${kinds.map(() => '---').join(' | ')} | --- |`);
for (const { evaluation } of reports) {
  for (const row of evaluation.rows) {
    if (row.id === 'original') continue;
    const name = `${row.name}${row.recovered ? ', repaired' : ''}`;
    const cells = kinds.map((kind) =>
      percent(row.kinds.find((/** @type {any} */ one) => one.kind === kind).excess),
    );
    console.log(`| ${row.steps} | ${name} | ${cells.join(' | ')} | ${percent(row.excess)} |`);
  }
}

/** Takes an option and its values out of the arguments. @param {string} name @returns {string[]} */
function option(name) {
  const at = rest.indexOf(name);
  if (at === -1) return [];
  const next = rest.findIndex((word, i) => i > at && word.startsWith('--'));
  const end = next === -1 ? rest.length : next;
  return rest.splice(at, end - at).slice(1);
}

/** @param {number} value */
function percent(value) {
  return `${value < 0 ? '−' : '+'}${Math.abs(100 * value).toFixed(1)} %`;
}
