// @ts-check
/**
 * What core/latency predicts from a profile of this machine, beside what plans take: a token behind 128 and behind 1,024
 * tokens, and a prompt of 128.
 *
 *   node tools/bench/latency.mjs <model> --work DIR [--threads 1] [--rounds 7] [--tokens 24] [--plans 38]
 *     [--seconds N] [--report]    (needs a build)
 *
 * The work folder takes the profile, the rewritten models and what was measured; a run that was stopped, or ended by
 * `--seconds`, goes on where it was. `--report` measures nothing and prints the table of what is there.
 *
 * Every round opens each model anew, one after the other, from another place on: where a session's weights come to lie in
 * memory makes a difference of some per cent for as long as it lives. Times are medians over rounds, and over several profiles
 * that are measured between the rounds. With one thread they are of the processor, from which other work takes less. Two
 * plans differ beyond noise where they differ by more than twice the standard error of their difference (bootstrap over
 * rounds).
 * None of the plans is used to fit anything: predictions know the profile and, where it says so, the unplanned model's time.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { calibrateWork, onOneDevice, parseProfile, predictPass, sequentialSteps } from '@cqil/core';
import { locateModel, rewriteModel, shapeOfModel } from '@cqil/planner';
import { DecoderSession, machine, measureProfile, seededRandom, spread, workOf } from '@cqil/runtime-gpu';

/** @typedef {import('@cqil/core').Plan} Plan */
/** @typedef {{ name: string, plan: Plan }} Named */
/** Milliseconds by what was measured. @typedef {Record<string, number>} Times */

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    work: { type: 'string' },
    threads: { type: 'string', default: '1' },
    rounds: { type: 'string', default: '7' },
    tokens: { type: 'string', default: '24' },
    plans: { type: 'string', default: '99' },
    seconds: { type: 'string', default: '100000' },
    report: { type: 'boolean', default: false },
  },
});
const [folder] = positionals;
const { work } = values;
if (folder === undefined || work === undefined) {
  console.error(
    'Usage: node tools/bench/latency.mjs <model> --work DIR [--threads 1] [--seconds N] [--report]',
  );
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
    groups: [...a.plan.groups, ...b.plan.groups].sort((x, y) => (x.layers[0] ?? 0) - (y.layers[0] ?? 0)),
  },
});

const scattered = [
  [3, 4],
  [9, 10],
  [14, 15],
  [21, 22],
  [26, 27],
];
const uneven = [
  [4, 5],
  [8, 9, 10],
  [14, 15, 16, 17],
  [20, 21],
  [24, 25, 26],
];
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
/** The unplanned model is measured before every so many plans. */
const UNPLANNED_EVERY = 6;
/** Behind a long context every third plan is measured. */
const isLong = (/** @type {number} */ i) => i % 3 === 0;

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

/** Profiles that were measured, some between the rounds. @type {import('@cqil/core').MachineProfile[]} */
const profiles = read('profiles.json') ?? [];
async function profileOnce() {
  const started = performance.now();
  profiles.push(await measureProfile({ ...workOf(shape, PROMPT), threads, secondsEach: 0.5 }));
  write('profiles.json', profiles);
  console.error(`profile ${profiles.length}: ${((performance.now() - started) / 1000).toFixed(0)} s`);
}

const middle = (/** @type {number[]} */ all) => spread(all).median;

/** Of each number the median of the profiles. */
function middleOf() {
  const devices = profiles.flatMap(({ devices: [device] }) => device ?? []);
  const [first] = profiles;
  const [device] = devices;
  if (first === undefined || device === undefined) return undefined;
  const found = structuredClone(device);
  for (const key of /** @type {const} */ (['launchSeconds', 'runSeconds', 'memoryBytesPerSecond'])) {
    found[key] = middle(devices.map((one) => one[key]));
  }
  found.peakFlops.float32 = middle(devices.map(({ peakFlops }) => peakFlops.float32 ?? 0));
  for (const kind of /** @type {const} */ (['products', 'attention', 'elementwise', 'norms'])) {
    for (const [i, one] of found[kind]?.entries() ?? []) {
      one.seconds = middle(devices.flatMap((other) => other[kind]?.[i]?.seconds ?? []));
    }
  }
  return { ...first, devices: [found] };
}

const clock = threads === 1 ? () => process.cpuUsage() : () => performance.now();
/** Milliseconds since. */
const since = (/** @type {any} */ start) => {
  if (threads !== 1) return performance.now() - start;
  const { user, system } = process.cpuUsage(start);
  return (user + system) / 1000;
};

const ids = (/** @type {number} */ count, /** @type {number} */ step) =>
  Array.from({ length: count }, (_, i) => (i * step) % 20_000);

/** What a model takes, opened for this alone. @param {string} graph @param {boolean} long @returns {Promise<Times>} */
async function measure(graph, long) {
  const decoder = await DecoderSession.open(graph, { threads });
  try {
    /** @param {number} prompt */
    const pass = async (prompt) => {
      let start = clock();
      let { cache } = await decoder.forward({
        inputIds: [ids(prompt, 7919)],
        keep: 'last',
        capacity: prompt + tokens + 65,
      });
      const prefill = since(start);
      const times = [];
      for (let i = 0; i < tokens; i++) {
        start = clock();
        ({ cache } = await decoder.forward({ inputIds: [[(i * 31) % 20_000]], cache, keep: 'last' }));
        times.push(since(start));
      }
      cache.dispose();
      return { prefill, decode: spread(times).median };
    };
    const passes = [await pass(PROMPT), await pass(PROMPT)];
    const times = {
      prefill: Math.min(...passes.map(({ prefill }) => prefill)),
      decode: Math.min(...passes.map(({ decode }) => decode)),
    };
    return long ? { ...times, long: (await pass(LONG)).decode } : times;
  } finally {
    await decoder.dispose();
  }
}

/** By round, by plan. @type {Record<string, Times>[]} */
const measured = read('measured.json') ?? [];
if (!values.report) {
  const models = [];
  for (const [i, { name, plan }] of PLANS.entries()) {
    const out = file(`plans/${i}`);
    if (!existsSync(out)) {
      if (spent()) stop(`before ${name} was written`);
      await rewriteModel(source, plan, out, { wide: { kv: 'merged' } });
    }
    // The unplanned model again and again, so that what drifts can be told.
    if (i % UNPLANNED_EVERY === 0)
      models.push({ name: `unplanned ${i}`, graph: source.onnxFile, long: true });
    models.push({ name, graph: path.join(out, source.onnxRelative), long: isLong(i) });
  }
  for (let round = 0; round < rounds; round++) {
    if (profiles.length <= round / 2) await profileOnce();
    const done = measured[round] ?? {};
    measured[round] = done;
    const start = Math.floor((round * models.length) / rounds);
    for (let i = 0; i < models.length; i++) {
      const { name, graph, long } = /** @type {typeof models[number]} */ (
        models[(start + i) % models.length]
      );
      if (done[name] !== undefined) continue;
      if (spent()) stop(`in round ${round + 1} of ${rounds}`);
      done[name] = await measure(graph, long);
      write('measured.json', measured);
    }
    console.error(`round ${round + 1} of ${rounds}`);
  }
}

const merged = middleOf();
if (merged === undefined) stop('before the profile');
const profile = parseProfile(merged);
const whole = measured.filter((round) => PLANS.every(({ name }) => round[name] !== undefined));
if (whole.length < 2) stop('before two rounds were measured');

/** Draws with replacement, the same each time. */
const random = seededRandom(1);
/**
 * The median, and its standard error by 200 draws with replacement (the bootstrap).
 *
 * @param {number[]} times
 */
function typical(times) {
  const draws = Array.from({ length: 200 }, () =>
    middle(times.map(() => /** @type {number} */ (times[Math.floor(random() * times.length)]))),
  );
  const mean = draws.reduce((sum, one) => sum + one, 0) / draws.length;
  const variance = draws.reduce((sum, one) => sum + (one - mean) ** 2, 0) / (draws.length - 1);
  return { ms: middle(times), error: Math.sqrt(variance) };
}
/** @param {(name: string) => boolean} wanted @param {keyof typeof PASSES} kind */
const timesOf = (wanted, kind) =>
  whole.flatMap((round) =>
    Object.entries(round).flatMap(([name, times]) => (wanted(name) ? (times[kind] ?? []) : [])),
  );
const PASSES = {
  decode: { tokens: 1, context: PROMPT + tokens / 2 },
  long: { tokens: 1, context: LONG + tokens / 2 },
  prefill: { tokens: PROMPT, context: 0 },
};
const predicted = (/** @type {Plan} */ plan, /** @type {keyof typeof PASSES} */ kind, machine = profile) =>
  1000 * predictPass({ plan, shape, profile: machine, placement: onOneDevice('0') }, PASSES[kind]).seconds;

const document = {
  machine: machine(),
  profile: profile.sources,
  rounds,
  tokens,
  kinds: /** @type {any} */ ({}),
};
for (const kind of /** @type {(keyof typeof PASSES)[]} */ (KINDS)) {
  const alone = predicted({ version: 1, layers: 30, groups: [] }, kind);
  const unplanned = typical(timesOf((name) => name.startsWith('unplanned'), kind)).ms;
  // What a program knows that has timed the unplanned model, too.
  const known = calibrateWork(profile, shape, PASSES[kind], unplanned / 1000);
  const rows = PLANS.flatMap(({ name, plan }) => {
    const times = timesOf((one) => one === name, kind);
    if (times.length === 0) return [];
    const { ms, error: noise } = typical(times);
    const guess = predicted(plan, kind);
    const calibrated = predicted(plan, kind, known);
    return [
      {
        name,
        steps: sequentialSteps(plan),
        ms,
        noise,
        guess,
        error: guess / ms - 1,
        calibrated,
        calibratedError: calibrated / ms - 1,
      },
    ];
  });
  const pairs = rows.flatMap((a, i) =>
    rows.slice(i + 1).map((b) => ({
      // Alike where the difference may be noise of the two.
      clear: Math.abs(a.ms - b.ms) > 2 * Math.hypot(a.noise, b.noise),
      right: (a.ms - b.ms) * (a.calibrated - b.calibrated) > 0,
    })),
  );
  const share = (/** @type {typeof pairs} */ some) => some.filter(({ right }) => right).length / some.length;
  const size = (/** @type {number[]} */ all) => spread(all.map(Math.abs));
  const absolute = size(rows.map(({ error }) => error));
  const relative = size(rows.map(({ calibratedError }) => calibratedError));
  const percent = (/** @type {number} */ x) => `${(100 * x).toFixed(1)} %`;
  console.log(`\n${kind}: unplanned ${unplanned.toFixed(2)} ms, predicted ${alone.toFixed(2)}`);
  console.log(
    '| plan | steps | measured, ms | by the profile | error | with the unplanned time | error |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: |',
  );
  for (const row of rows) {
    console.log(
      `| ${row.name} | ${row.steps} | ${row.ms.toFixed(2)} ± ${row.noise.toFixed(2)} | ${row.guess.toFixed(2)} | ${percent(row.error)} | ${row.calibrated.toFixed(2)} | ${percent(row.calibratedError)} |`,
    );
  }
  console.log(
    `${rows.length} plans: median error ${percent(absolute.median)} (q3 ${percent(absolute.q3)}), with the unplanned time ${percent(relative.median)} (q3 ${percent(relative.q3)});`,
  );
  console.log(
    `pairs ranked rightly: ${percent(share(pairs))} of ${pairs.length}; of the ${pairs.filter(({ clear }) => clear).length} beyond noise ${percent(share(pairs.filter(({ clear }) => clear)))}, of the rest ${percent(share(pairs.filter(({ clear }) => !clear)))}`,
  );
  document.kinds[kind] = {
    unplanned,
    alone,
    rows,
    absolute,
    relative,
    pairs: share(pairs),
    clear: share(pairs.filter(({ clear }) => clear)),
  };
}
write('report.json', document);
