// @ts-check
/**
 * What core/latency predicts of partitioned plans (`cqil partition`) from a profile of the devices (`cqil profile
 * --devices`), beside what they take: a token behind 128 tokens and a prompt of 128, on the clock.
 *
 *   node tools/bench/latency-devices.mjs <model> --work DIR [--devices cpu:0,cpu:1] [--rounds 5] [--profiles 1]
 *     [--tokens 24] [--prepare] [--report]    (needs a build)
 *
 * Pairs in branches, 4, 10 and 15 of them, with each bypass: 26, 20 and 15 steps. The work folder takes models, profiles and
 * times, and the same command goes on where it was: `--prepare` writes models only, `--report` measures nothing.
 * Every round opens each partition anew; a time is the median token, or prompt, of a round, and of those the median. Nothing is fitted:
 * predictions know the profiles.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { parseProfile, predictPass, sequentialSteps } from '@cqil/core';
import { locateModel, partitionModel, rewriteModel, shapeOfModel } from '@cqil/planner';
import { ALL_DEVICES, machine, measurePartition, openPartitioned, spread, workOf } from '@cqil/runtime-gpu';

/** @typedef {import('@cqil/core').Plan} Plan */

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    work: { type: 'string' },
    devices: { type: 'string', default: 'cpu:0,cpu:1' },
    rounds: { type: 'string', default: '5' },
    profiles: { type: 'string', default: '1' },
    tokens: { type: 'string', default: '24' },
    prepare: { type: 'boolean', default: false },
    report: { type: 'boolean', default: false },
  },
});
const [folder] = positionals;
const { work } = values;
if (folder === undefined || work === undefined) {
  console.error(
    'Usage: node tools/bench/latency-devices.mjs <model> --work DIR [--devices cpu:0,cpu:1] [--prepare | --report]',
  );
  process.exit(2);
}
const devices = values.devices.split(',');
const tokens = Number(values.tokens);
const PROMPT = 128;

const source = await locateModel(folder);
const shape = await shapeOfModel(source);
const { layers } = shape;

/** @type {{ name: string, plan: Plan }[]} */
const PLANS = [4, 10, 15].flatMap((count) =>
  /** @type {const} */ ([0, 1, 'full']).map((bypass) => ({
    name: `${count} pairs, d ${bypass}`,
    plan: {
      version: /** @type {const} */ (1),
      layers,
      groups: Array.from({ length: count }, (_, g) => {
        const first = layers - 2 * (count - g);
        return { layers: [first, first + 1], bypass };
      }),
    },
  })),
);

mkdirSync(work, { recursive: true });
const file = (/** @type {string} */ name) => path.join(work, name);
const read = (/** @type {string} */ name) =>
  existsSync(file(name)) ? JSON.parse(readFileSync(file(name), 'utf8')) : undefined;
const write = (/** @type {string} */ name, /** @type {unknown} */ value) =>
  writeFileSync(file(name), JSON.stringify(value, undefined, 1));
const partOf = (/** @type {string} */ name) => file(`parts/${name.replaceAll(/[^a-z0-9]+/g, '-')}`);

/** @type {import('@cqil/core').MachineProfile[]} */
const profiles = read('device-profiles.json') ?? [];
/** Milliseconds by round, by plan. @type {Record<string, { decode: number, prefill: number }>[]} */
const measured = read('devices.json') ?? [];

/** @param {string} root @returns {Promise<{ decode: number, prefill: number }>} */
async function measure(root) {
  const model = await openPartitioned(root);
  try {
    const prompt = async () => {
      const start = performance.now();
      const { cache } = await model.forward({
        inputIds: [Array.from({ length: PROMPT }, (_, i) => (i * 7919) % 20_000)],
        keep: 'last',
        capacity: PROMPT + tokens + 1,
      });
      return { cache, ms: performance.now() - start };
    };
    // The first two take memory that is new to the process.
    for (let i = 0; i < 2; i++) (await prompt()).cache.dispose();
    const prompts = [];
    for (let i = 0; i < 2; i++) {
      const { cache, ms } = await prompt();
      prompts.push(ms);
      cache.dispose();
    }
    let { cache, ms } = await prompt();
    prompts.push(ms);
    const times = [];
    for (let i = 0; i < tokens; i++) {
      const start = performance.now();
      ({ cache } = await model.forward({ inputIds: [[(i * 31) % 20_000]], cache, keep: 'last' }));
      times.push(performance.now() - start);
    }
    cache.dispose();
    return { decode: spread(times).median, prefill: spread(prompts).median };
  } finally {
    await model.dispose();
  }
}

if (!values.report) {
  for (const { name, plan } of PLANS) {
    if (existsSync(partOf(name))) continue;
    const planned = file(`planned/${path.basename(partOf(name))}`);
    if (!existsSync(planned)) await rewriteModel(source, plan, planned);
    await partitionModel(await locateModel(planned), partOf(name), { devices, spread: true, check: false });
  }
  if (values.prepare) process.exit(0);
  for (let round = 0; round < Number(values.rounds); round++) {
    if (profiles.length < Number(values.profiles)) {
      profiles.push(await measurePartition(devices, { ...workOf(shape, PROMPT, [1]), secondsEach: 0.2 }));
      write('device-profiles.json', profiles);
      console.error(`profile ${profiles.length}`);
    }
    const done = measured[round] ?? {};
    measured[round] = done;
    for (let i = 0; i < PLANS.length; i++) {
      const { name } = /** @type {typeof PLANS[number]} */ (PLANS[(i + 2 * round) % PLANS.length]);
      if (done[name] !== undefined) continue;
      done[name] = await measure(partOf(name));
      write('devices.json', measured);
    }
    console.error(`round ${round + 1} of ${values.rounds}`);
  }
}

const teams = [[ALL_DEVICES], ...devices.map((id) => [id])];
/** @param {Plan} plan @param {import('@cqil/core').Pass} pass */
const predicted = (plan, pass) =>
  spread(
    profiles.map((profile) => {
      // Branch k is on device k, counted round; what is in no group on all.
      const assignment = plan.groups.map((group) => group.layers.map((_, k) => 1 + (k % devices.length)));
      const options = { plan, shape, profile: parseProfile(profile), placement: { teams, assignment } };
      return 1000 * predictPass(options, pass).seconds;
    }),
  ).median;
const PASSES = {
  decode: { tokens: 1, context: PROMPT + tokens / 2 },
  prefill: { tokens: PROMPT, context: 0 },
};
const percent = (/** @type {number} */ x) => `${(100 * x).toFixed(1)} %`;
const document = { machine: machine(), load: os.loadavg(), devices, kinds: /** @type {any} */ ({}) };
for (const kind of /** @type {const} */ (['decode', 'prefill'])) {
  const rows = PLANS.flatMap(({ name, plan }) => {
    const times = measured.flatMap((round) => round[name]?.[kind] ?? []);
    if (times.length === 0) return [];
    const { median: ms, q1, q3 } = spread(times);
    const guess = predicted(plan, PASSES[kind]);
    return [{ name, steps: sequentialSteps(plan), ms, q1, q3, guess, error: guess / ms - 1 }];
  });
  console.log(
    `\n${kind}\n| plan | steps | measured, ms | predicted | error |\n| --- | ---: | ---: | ---: | ---: |`,
  );
  for (const { name, steps, ms, q1, q3, guess, error } of rows) {
    console.log(
      `| ${name} | ${steps} | ${ms.toFixed(2)} (${q1.toFixed(2)}–${q3.toFixed(2)}) | ${guess.toFixed(2)} | ${percent(error)} |`,
    );
  }
  const errors = spread(rows.map(({ error }) => Math.abs(error)));
  console.log(`${rows.length} plans: median error ${percent(errors.median)} (q3 ${percent(errors.q3)})`);
  document.kinds[kind] = { rows, errors };
}
write('devices-report.json', document);
