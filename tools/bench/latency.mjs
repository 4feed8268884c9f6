// @ts-check
/**
 * What core/latency predicts from a profile of this machine, beside what plans take: a token behind 128 and behind 1,024
 * tokens, and a prompt of 128.
 *
 *   node tools/bench/latency.mjs <model> --work DIR [--threads 1] [--rounds 5] [--tokens 16] [--batch 5] [--plans 38]
 *     [--seconds N] [--report]    (needs a build)
 *
 * The work folder takes the profile, the rewritten models and what was measured; a run that was stopped, or ended by
 * `--seconds`, goes on where it was. `--report` measures nothing and prints the table of what is there.
 *
 * Plans are measured some at a time, each batch together with the unplanned model, in an order that turns from round to
 * round; a plan's time is its ratio to the unplanned model in the same round (median over rounds) times what the unplanned
 * model took over all. With one thread times are of the processor, from which other work takes less.
 * None of the plans is used to fit anything: predictions know the profile and, where it says so, the unplanned model's time.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { calibrateLaunch, onOneDevice, parseProfile, predictPass, sequentialSteps, uniformPlan } from '@cqil/core';
import { locateModel, rewriteModel, shapeOfModel } from '@cqil/planner';
import { DecoderSession, machine, measureProfile, spread, workOf } from '@cqil/runtime-gpu';

/** @typedef {import('@cqil/core').Plan} Plan */
/** @typedef {{ name: string, plan: Plan }} Named */
/** Milliseconds by what was measured. @typedef {Record<string, number>} Times */

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    work: { type: 'string' },
    threads: { type: 'string', default: '1' },
    rounds: { type: 'string', default: '5' },
    tokens: { type: 'string', default: '16' },
    batch: { type: 'string', default: '5' },
    plans: { type: 'string', default: '99' },
    seconds: { type: 'string', default: '100000' },
    report: { type: 'boolean', default: false },
  },
});
const [folder] = positionals;
const { work } = values;
if (folder === undefined || work === undefined) {
  console.error('Usage: node tools/bench/latency.mjs <model> --work DIR [--threads 1] [--seconds N] [--report]');
  process.exit(2);
}
const threads = Number(values.threads);
const rounds = Number(values.rounds);
const tokens = Number(values.tokens);
const PROMPT = 128;
const LONG = 1024;
const deadline = performance.now() + 1000 * Number(values.seconds);
const KINDS = ['decode', 'long', 'prefill'];

/** So many groups of so many layers, one behind the other from `first` on. */
const run = (/** @type {number} */ first, /** @type {number} */ count, /** @type {number} */ size) =>
  Array.from({ length: count }, (_, g) => Array.from({ length: size }, (_, i) => first + g * size + i));

/**
 * @param {string} name @param {(readonly number[])[]} groups @param {import('@cqil/core').Bypass} bypass
 * @param {boolean} [wide] @returns {Named}
 */
const planned = (name, groups, bypass, wide = false) => ({
  name,
  plan: {
    version: 1,
    layers: 30,
    groups: groups.map((layers) => ({
      layers: [...layers],
      bypass,
      ...(wide ? { form: /** @type {const} */ ('wide') } : {}),
    })),
  },
});
const branches = (/** @type {string} */ name, /** @type {number[][]} */ groups, /** @type {any} */ bypass) =>
  planned(`branches, ${name}, d ${bypass}`, groups, bypass);
const wide = (/** @type {string} */ name, /** @type {number[][]} */ groups) =>
  planned(`wide, ${name}`, groups, 'full', true);
/** @param {string} name @param {Named} a @param {Named} b @returns {Named} */
const both = (name, a, b) => ({
  name: `mixed, ${name}`,
  plan: {
    ...a.plan,
    groups: [...a.plan.groups, ...b.plan.groups].sort((x, y) => x.layers[0] - y.layers[0]),
  },
});

const scattered = [[3, 4], [9, 10], [14, 15], [21, 22], [26, 27]];
const uneven = [[4, 5], [8, 9, 10], [14, 15, 16, 17], [20, 21], [24, 25, 26]];
/** Kinds take turns, so that a part of the list is a mixture, too. @type {Named[]} */
const PLANS = [
  wide('4 pairs', run(20, 4, 2)),
  branches('8 pairs', run(12, 8, 2), 1),
  wide('15 pairs', run(0, 15, 2)),
  branches('one pair', run(14, 1, 2), 1),
  both('4 pairs wide, 4 in branches', wide('', run(20, 4, 2)), branches('', run(12, 4, 2), 1)),
  wide('7 fours', run(2, 7, 4)),
  branches('15 pairs', run(0, 15, 2), 0),
  wide('5 pairs, scattered', scattered),
  branches('5 threes', run(12, 5, 3), 1),
  wide('one pair', run(14, 1, 2)),
  wide('10 threes', run(0, 10, 3)),
  branches('4 fours', run(12, 4, 4), 'full'),
  both('one four wide, 8 pairs in branches', wide('', run(26, 1, 4)), branches('', run(8, 8, 2), 0)),
  wide('8 pairs', run(12, 8, 2)),
  branches('uneven groups', uneven, 1),
  wide('uneven groups', uneven),
  branches('15 pairs', run(0, 15, 2), 1),
  wide('5 threes', run(12, 5, 3)),
  wide('6 fives', run(0, 6, 5)),
  branches('4 pairs', run(20, 4, 2), 0),
  both('5 threes wide, 5 pairs in branches', wide('', run(15, 5, 3)), branches('', run(3, 5, 2), 'full')),
  wide('2 pairs', run(18, 2, 2)),
  branches('10 threes', run(0, 10, 3), 0),
  wide('3 tens', run(0, 3, 10)),
  branches('8 pairs', run(12, 8, 2), 'full'),
  wide('12 pairs', run(4, 12, 2)),
  wide('4 fours', run(12, 4, 4)),
  branches('7 fours', run(2, 7, 4), 1),
  wide('one three', run(13, 1, 3)),
  both('10 pairs wide, 3 threes in branches', wide('', run(0, 10, 2)), branches('', run(21, 3, 3), 1)),
  branches('6 fives', run(0, 6, 5), 0),
  wide('10 pairs', run(8, 10, 2)),
  wide('2 fives, 5 fours', [...run(0, 2, 5), ...run(10, 5, 4)]),
  branches('8 pairs', run(12, 8, 2), 0),
  wide('6 pairs', run(16, 6, 2)),
  wide('3 sixes', run(12, 3, 6)),
  branches('10 threes', run(0, 10, 3), 'full'),
  wide('one four', run(14, 1, 4)),
].slice(0, Number(values.plans));
const UNPLANNED = { name: 'unplanned', plan: /** @type {Plan} */ ({ version: 1, layers: 30, groups: [] }) };

mkdirSync(work, { recursive: true });
const file = (/** @type {string} */ name) => path.join(work, name);
const read = (/** @type {string} */ name) =>
  existsSync(file(name)) ? JSON.parse(readFileSync(file(name), 'utf8')) : undefined;
const write = (/** @type {string} */ name, /** @type {unknown} */ value) =>
  writeFileSync(file(name), JSON.stringify(value, undefined, 1));
const spent = () => performance.now() > deadline;
/** @returns {never} */
const stop = (/** @type {string} */ at) => {
  console.error(`stopped ${at}; the same command goes on`);
  process.exit(0);
};

const source = await locateModel(folder);
const shape = await shapeOfModel(source);

if (!existsSync(file('profile.json'))) {
  if (values.report) stop('before the profile');
  console.error('measuring the profile');
  const started = performance.now();
  const profile = await measureProfile({ ...workOf(shape, PROMPT), threads, secondsEach: 0.6 });
  write('profile.json', profile);
  console.error(`profile: ${((performance.now() - started) / 1000).toFixed(0)} s`);
}

const clock = threads === 1 ? () => process.cpuUsage() : () => performance.now();
/** Milliseconds since. */
const since = (/** @type {any} */ start) => {
  if (threads !== 1) return performance.now() - start;
  const { user, system } = process.cpuUsage(start);
  return (user + system) / 1000;
};

/** What a round of a model takes. @param {DecoderSession} decoder @param {any} long a cache of LONG tokens */
async function measure(decoder, long) {
  const prompt = Array.from({ length: PROMPT }, (_, i) => (i * 7919) % 20_000);
  let start = clock();
  let { cache } = await decoder.forward({ inputIds: [prompt], keep: 'last', capacity: PROMPT + tokens + 1 });
  const prefill = since(start);
  const steps = async () => {
    const times = [];
    for (let i = 0; i < tokens; i++) {
      start = clock();
      ({ cache } = await decoder.forward({ inputIds: [[(i * 31) % 20_000]], cache, keep: 'last' }));
      times.push(since(start));
    }
    return spread(times).median;
  };
  const decode = await steps();
  cache.dispose();
  cache = long.truncate(LONG);
  return { times: { prefill, decode, long: await steps() }, long: cache };
}

/** @type {Record<string, { batch: number, rounds: Record<string, number[]> }>} */
const measured = read('measured.json') ?? {};
if (!values.report) {
  const missing = PLANS.filter(({ name }) => measured[name] === undefined);
  const size = Number(values.batch);
  for (let at = 0; at < missing.length; at += size) {
    if (spent()) stop(`before plan ${at} of ${missing.length}`);
    const batch = missing.slice(at, at + size);
    /** @type {{ name: string, decoder: DecoderSession, long: any, rounds: Record<string, number[]> }[]} */
    const opened = [];
    for (const { name, plan } of [UNPLANNED, ...batch]) {
      const out = file(`plans/${PLANS.findIndex((one) => one.name === name)}`);
      if (plan.groups.length > 0 && !existsSync(out)) {
        await rewriteModel(source, plan, out, { wide: { kv: 'merged' } });
      }
      const graph = plan.groups.length === 0 ? source.onnxFile : path.join(out, source.onnxRelative);
      const decoder = await DecoderSession.open(graph, { threads });
      const inputIds = [Array.from({ length: LONG }, (_, i) => (i * 104_729) % 20_000)];
      const { cache } = await decoder.forward({ inputIds, keep: 'last', capacity: LONG + tokens + 65 });
      opened.push({ name, decoder, long: cache, rounds: { prefill: [], decode: [], long: [] } });
    }
    for (let round = -1; round < rounds; round++) {
      for (let i = 0; i < opened.length; i++) {
        const one = opened[(i + round + opened.length) % opened.length];
        const { times, long } = await measure(one.decoder, one.long);
        one.long = long;
        if (round >= 0) for (const kind of KINDS) one.rounds[kind].push(/** @type {Times} */ (times)[kind]);
      }
    }
    const number = Object.keys(measured).length;
    for (const { name, rounds: found } of opened) {
      measured[name === 'unplanned' ? `unplanned ${number}` : name] = { batch: number, rounds: found };
    }
    write('measured.json', measured);
    for (const { decoder } of opened) await decoder.dispose();
    console.error(`${at + batch.length} of ${missing.length}`);
  }
}

const profile = parseProfile(read('profile.json'));
const base = Object.entries(measured).filter(([name]) => name.startsWith('unplanned'));
/** @type {Record<string, number>} */
const unplanned = {};
for (const kind of KINDS) unplanned[kind] = spread(base.flatMap(([, { rounds }]) => rounds[kind])).median;
const PASSES = {
  decode: { tokens: 1, context: PROMPT + tokens / 2 },
  long: { tokens: 1, context: LONG + tokens / 2 },
  prefill: { tokens: PROMPT, context: 0 },
};
const predicted = (/** @type {Plan} */ plan, /** @type {keyof typeof PASSES} */ kind, machine = profile) =>
  1000 * predictPass({ plan, shape, profile: machine, placement: onOneDevice('0') }, PASSES[kind]).seconds;

/** Ratio to the unplanned model in the same round: median, and how far off it may be (twice the median's deviation). */
const ratioOf = (/** @type {string} */ name, /** @type {string} */ kind) => {
  const { batch, rounds } = measured[name];
  const [, beside] = /** @type {any} */ (base.find(([, one]) => one.batch === batch));
  const { median, q1, q3 } = spread(rounds[kind].map((ms, i) => ms / beside.rounds[kind][i]));
  return { median, noise: (2 * 1.2533 * (q3 - q1)) / 1.349 / Math.sqrt(rounds[kind].length) };
};

const known = PLANS.filter(({ name }) => measured[name] !== undefined);
const document = { machine: machine(), profile: profile.sources, rounds, tokens, kinds: /** @type {any} */ ({}) };
for (const kind of /** @type {(keyof typeof PASSES)[]} */ (KINDS)) {
  const alone = predicted(UNPLANNED.plan, kind);
  const rows = known.map(({ name, plan }) => {
    const { median, noise } = ratioOf(name, kind);
    const ms = median * unplanned[kind];
    const guess = predicted(plan, kind);
    return {
      name,
      steps: sequentialSteps(plan),
      ms,
      noise: noise * unplanned[kind],
      guess,
      error: guess / ms - 1,
      // What a program knows that has timed the unplanned model, too.
      relative: guess / alone / median - 1,
    };
  });
  const pairs = rows.flatMap((a, i) =>
    rows.slice(i + 1).map((b) => ({
      // Alike where the difference may be noise of the two.
      clear: Math.abs(a.ms - b.ms) > Math.hypot(a.noise, b.noise),
      right: (a.ms - b.ms) * (a.guess - b.guess) > 0,
    })),
  );
  const share = (/** @type {typeof pairs} */ some) => some.filter(({ right }) => right).length / some.length;
  const size = (/** @type {number[]} */ all) => spread(all.map(Math.abs));
  const [absolute, relative] = [size(rows.map(({ error }) => error)), size(rows.map((row) => row.relative))];
  const percent = (/** @type {number} */ x) => `${(100 * x).toFixed(1)} %`;
  console.log(`\n${kind}: unplanned ${unplanned[kind].toFixed(2)} ms, predicted ${alone.toFixed(2)}`);
  console.log('| plan | steps | measured, ms | predicted | error | of the ratio |\n| --- | ---: | ---: | ---: | ---: | ---: |');
  for (const row of rows) {
    console.log(
      `| ${row.name} | ${row.steps} | ${row.ms.toFixed(2)} ± ${row.noise.toFixed(2)} | ${row.guess.toFixed(2)} | ${percent(row.error)} | ${percent(row.relative)} |`,
    );
  }
  console.log(
    `${rows.length} plans: median error ${percent(absolute.median)} (q3 ${percent(absolute.q3)}), of the ratio to unplanned ${percent(relative.median)} (q3 ${percent(relative.q3)});`,
  );
  console.log(
    `pairs ranked rightly: ${percent(share(pairs))} of ${pairs.length}; of the ${pairs.filter(({ clear }) => clear).length} beyond noise ${percent(share(pairs.filter(({ clear }) => clear)))}, of the rest ${percent(share(pairs.filter(({ clear }) => !clear)))}`,
  );
  document.kinds[kind] = { unplanned: unplanned[kind], alone, rows, absolute, relative, pairs: share(pairs), clear: share(pairs.filter(({ clear }) => clear)) };
}
write('report.json', document);
void calibrateLaunch;
void uniformPlan;
