// @ts-check
/**
 * What core/latency predicts from a profile of this machine, beside what plans take: a token behind 128 and behind 1,024
 * tokens, and a prompt of 128.
 *
 *   MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=8589934592 MALLOC_ARENA_MAX=1 node tools/bench/latency.mjs <model> --work DIR
 *     [--threads 1] [--rounds 7] [--tokens 24] [--plans 38] [--seconds N] [--report]    (needs a build)
 *
 * The work folder takes the profiles, the rewritten models and what was measured; a run that was stopped, or ended by
 * `--seconds`, goes on where it was. `--report` measures nothing and prints the table of what is there.
 *
 * Where a session's weights come to lie in memory makes a difference of some 5 % for as long as it lives, and what other work
 * does to the memory makes tens of per cent from second to second. So every round opens each model anew, from another place
 * of the list on; by those settings, glibc gives the memory of one model to the next, so that all of a round have the same
 * luck; and a model is measured beside one session of the unplanned model that stays, token by token in turn. What is taken
 * is the ratio of the two (of first quartiles, as the profile's runs are), over what the unplanned model's own ratio is when
 * it is opened like the others, several times a round. Of that the median over rounds. Every second round measures a profile
 * before; their medians are what predictions are made by. With one thread times are of the processor.
 * Two plans differ beyond noise where they differ by more than twice the standard error of their difference (bootstrap over
 * rounds). Plans that are predicted alike count as ranked wrongly.
 *
 * Plans follow a rule that knows nothing of latency: wide groups of 2, 3, 4, 5, 6 and 10, as many as a quarter, a half, three
 * quarters and all of the layers allow; groups of 2 and 3 in branches, a half and all, with each bypass; and for 2, 3 and 4 a
 * half of the groups wide and the other half in branches.
 * None of the plans is used to fit anything: predictions know the profiles and, where it says so, the unplanned model's time.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { calibrateWork, onOneDevice, parseProfile, predictPass, sequentialSteps } from '@cqil/core';
import { locateModel, rewriteModel, shapeOfModel } from '@cqil/planner';
import { DecoderSession, machine, measureProfile, seededRandom, spread, workOf } from '@cqil/runtime-gpu';

/** @typedef {import('@cqil/core').Plan} Plan */
/** @typedef {{ name: string, plan: Plan }} Named */
/** By what was measured: milliseconds of the plan, and of the unplanned model in turn with it. @typedef {Record<string, [plan: number, unplanned: number]>} Times */

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

const LAYERS = 30;
/** So many groups of so many layers, the last of them at the end. */
const groupsOf = (/** @type {number} */ size, /** @type {number} */ count) =>
  Array.from({ length: count }, (_, g) =>
    Array.from({ length: size }, (_, i) => LAYERS - (count - g) * size + i),
  );
const manyOf = (/** @type {number} */ size, /** @type {number} */ part) =>
  Math.max(1, Math.floor(part * Math.floor(LAYERS / size)));

/** @param {readonly number[][]} groups @param {import('@cqil/core').Bypass | 'wide'} form */
const formed = (groups, form) =>
  groups.map((layers) =>
    form === 'wide'
      ? { layers, bypass: /** @type {const} */ ('full'), form: /** @type {const} */ ('wide') }
      : { layers, bypass: form },
  );
/** @param {string} name @param {Plan['groups']} groups @returns {Named} */
const planned = (name, groups) => ({ name, plan: { version: 1, layers: LAYERS, groups } });

/** @returns {Named[]} */
function plans() {
  /** @type {Named[]} */
  const found = [];
  for (const size of [2, 3, 4, 5, 6, 10]) {
    for (const count of new Set([0.25, 0.5, 0.75, 1].map((part) => manyOf(size, part)))) {
      found.push(planned(`wide, ${count} × ${size}`, formed(groupsOf(size, count), 'wide')));
    }
  }
  for (const size of [2, 3]) {
    for (const count of [manyOf(size, 0.5), manyOf(size, 1)]) {
      for (const bypass of /** @type {const} */ ([0, 1, 'full'])) {
        const name = `branches, ${count} × ${size}, d ${bypass}`;
        found.push(planned(name, formed(groupsOf(size, count), bypass)));
      }
    }
  }
  for (const size of [2, 3, 4]) {
    const all = groupsOf(size, manyOf(size, 1));
    const half = Math.floor(all.length / 2);
    const groups = [...formed(all.slice(0, half), 1), ...formed(all.slice(half), 'wide')];
    found.push(planned(`mixed, ${half} × ${size} in branches, ${all.length - half} wide`, groups));
  }
  // In an order that mixes kinds, so that a part of the list is a mixture, too.
  return found.map((_, i) => /** @type {Named} */ (found[(i * 17) % found.length]));
}
const PLANS = plans().slice(0, Number(values.plans));
/** The unplanned model is one of those that are measured, before every so many plans. */
const UNPLANNED = 'unplanned';
const UNPLANNED_EVERY = 8;
/** Behind a long context every fourth plan is measured. */
const isLong = (/** @type {number} */ i) => i % 4 === 0;
/** And not in every round: such prompts take as long as all else. */
const LONG_EVERY = 3;

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
  profiles.push(await measureProfile({ ...workOf(shape, PROMPT), threads, secondsEach: 0.3 }));
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
  for (const [name, points] of Object.entries(found.operators ?? {})) {
    for (const [i, one] of points.entries()) {
      const kind = /** @type {import('@cqil/core').SmallOperator} */ (name);
      one.seconds = middle(devices.flatMap(({ operators }) => operators?.[kind]?.[i]?.seconds ?? []));
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

/** @typedef {import('@cqil/runtime-gpu').DecoderCache} Cache */
/** One prompt, and the cache behind it. @param {DecoderSession} decoder @param {number} length */
async function prompt(decoder, length) {
  const start = clock();
  const { cache } = await decoder.forward({
    inputIds: [ids(length, 7919)],
    keep: 'last',
    capacity: length + tokens + 65,
  });
  return { cache, ms: since(start) };
}
const quartile = (/** @type {number[]} */ all) => spread(all).q1;

/**
 * Tokens of two models in turn, from these caches on, which are gone then.
 *
 * @param {readonly [DecoderSession, DecoderSession]} decoders @param {[Cache, Cache]} caches
 * @returns {Promise<[plan: number, unplanned: number]>}
 */
async function tokensInTurn(decoders, caches) {
  const times = /** @type {[number[], number[]]} */ ([[], []]);
  for (let i = 0; i < tokens; i++) {
    for (const which of /** @type {const} */ ([0, 1])) {
      const start = clock();
      const step = {
        inputIds: [[(i * 31) % 20_000]],
        cache: caches[which],
        keep: /** @type {const} */ ('last'),
      };
      caches[which] = (await decoders[which].forward(step)).cache;
      times[which].push(since(start));
    }
  }
  for (const cache of caches) cache.dispose();
  return [quartile(times[0]), quartile(times[1])];
}

/** What a plan takes beside the unplanned model. @param {string} graph @param {DecoderSession} unplanned @param {boolean} long @returns {Promise<Times>} */
async function measure(graph, unplanned, long) {
  const decoder = await DecoderSession.open(graph, { threads });
  try {
    const both = /** @type {const} */ ([decoder, unplanned]);
    // The first takes memory, and tries out whether caches are written in place.
    (await prompt(decoder, PROMPT)).cache.dispose();
    const [one, other] = [await prompt(decoder, PROMPT), await prompt(unplanned, PROMPT)];
    /** @type {Times} */
    const found = {
      prefill: [one.ms, other.ms],
      decode: await tokensInTurn(both, [one.cache, other.cache]),
    };
    if (!long) return found;
    const behind = [(await prompt(decoder, LONG)).cache, (await prompt(unplanned, LONG)).cache];
    return { ...found, long: await tokensInTurn(both, /** @type {[Cache, Cache]} */ (behind)) };
  } finally {
    await decoder.dispose();
  }
}

/**
 * What was measured beside one session of the unplanned model, that of a process in a round.
 *
 * @typedef {{ round: number, times: Record<string, Times> }} Segment
 */
/** @type {Segment[]} */
const segments = read('measured.json') ?? [];
const doneIn = (/** @type {number} */ round) =>
  new Set(segments.flatMap((one) => (one.round === round ? Object.keys(one.times) : [])));
if (!values.report) {
  const models = [];
  for (const [i, { name, plan }] of PLANS.entries()) {
    const out = file(`plans/${name.replaceAll(/[^a-z0-9]+/g, '-')}`);
    if (!existsSync(out)) {
      if (spent()) stop(`before ${name} was written`);
      await rewriteModel(source, plan, out, { wide: { kv: 'merged' } });
    }
    if (i % UNPLANNED_EVERY === 0)
      models.push({ name: `${UNPLANNED} ${i}`, graph: source.onnxFile, long: isLong(i) });
    models.push({ name, graph: path.join(out, source.onnxRelative), long: isLong(i) });
  }
  for (let round = 0; round < rounds; round++) {
    if (spent()) stop(`before round ${round + 1} of ${rounds}`);
    if (profiles.length <= round / 2) await profileOnce();
    const done = doneIn(round);
    const start = Math.floor((round * models.length) / rounds);
    const open = [...models.slice(start), ...models.slice(0, start)].filter(({ name }) => !done.has(name));
    if (open.length === 0) continue;
    const unplanned = await DecoderSession.open(source.onnxFile, { threads });
    (await prompt(unplanned, PROMPT)).cache.dispose();
    /** @type {Segment} */
    const segment = { round, times: {} };
    segments.push(segment);
    const long = round % LONG_EVERY === 0;
    const first = { name: `${UNPLANNED} at first`, graph: source.onnxFile, long: true };
    for (const model of [first, ...open]) {
      if (spent()) stop(`in round ${round + 1} of ${rounds}`);
      segment.times[model.name] = await measure(model.graph, unplanned, long && model.long);
      write('measured.json', segments);
    }
    await unplanned.dispose();
    console.error(`round ${round + 1} of ${rounds}`);
  }
}

const merged = middleOf();
if (merged === undefined) stop('before the profile');
const profile = parseProfile(merged);
const whole = Array.from({ length: rounds }, (_, round) => round).filter((round) => {
  const done = doneIn(round);
  return PLANS.every(({ name }) => done.has(name));
});
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
/** Of a segment, the unplanned model's times over those of the session that stays. @param {Segment} segment @param {keyof typeof PASSES} kind */
function unplannedRatio({ times }, kind) {
  const pairs = Object.entries(times).flatMap(([name, { [kind]: pair }]) =>
    name.startsWith(UNPLANNED) && pair !== undefined ? [pair] : [],
  );
  return middle(pairs.map(([own, beside]) => own / beside));
}
const counted = segments.filter(({ round }) => whole.includes(round));
/** Of each round, a plan's time over the unplanned model's. @param {string} name @param {keyof typeof PASSES} kind */
const ratiosOf = (name, kind) =>
  counted.flatMap((segment) => {
    const pair = segment.times[name]?.[kind];
    return pair === undefined ? [] : [pair[0] / pair[1] / unplannedRatio(segment, kind)];
  });
/** What the unplanned model takes, those sessions that stay among them. @param {keyof typeof PASSES} kind */
function unplannedTimes(kind) {
  return counted.flatMap(({ times }) =>
    Object.entries(times).flatMap(([name, { [kind]: pair }]) =>
      pair === undefined ? [] : name.startsWith(UNPLANNED) ? pair : [pair[1]],
    ),
  );
}
/**
 * Of prompts the first quartile, as the profile has first quartiles of runs; of tokens the median over what are first
 * quartiles already.
 *
 * @param {keyof typeof PASSES} kind
 */
function unplannedMs(kind) {
  const times = unplannedTimes(kind);
  return kind === 'prefill' ? quartile(times) : middle(times);
}
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
  const alone = predicted({ version: 1, layers: LAYERS, groups: [] }, kind);
  const unplanned = unplannedMs(kind);
  // What a program knows that has timed the unplanned model, too.
  const known = calibrateWork(profile, shape, PASSES[kind], unplanned / 1000);
  const rows = PLANS.flatMap(({ name, plan }) => {
    const ratios = ratiosOf(name, kind);
    if (ratios.length === 0) return [];
    const { ms: ratio, error } = typical(ratios);
    const [ms, noise] = [ratio * unplanned, error * unplanned];
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
      right: (a.ms - b.ms) * (a.guess - b.guess) > 0,
      close: Math.abs(a.ms - b.ms) < 0.01 * Math.min(a.ms, b.ms),
    })),
  );
  const share = (/** @type {typeof pairs} */ some) => some.filter(({ right }) => right).length / some.length;
  const rightly = (/** @type {typeof pairs} */ some) => `${percent(share(some))} of ${some.length}`;
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
    `pairs ranked rightly: ${rightly(pairs)}; beyond noise ${rightly(pairs.filter(({ clear }) => clear))}, the rest ${rightly(pairs.filter(({ clear }) => !clear))}; that differ by 1 % or more ${rightly(pairs.filter(({ close }) => !close))}`,
  );
  const medianMs = middle(unplannedTimes(kind));
  // Where the median is what counts, not the first quartile.
  const byMedian = size(rows.map(({ guess, ms }) => guess / ((ms / unplanned) * medianMs) - 1));
  if (medianMs !== unplanned) {
    console.log(`by medians: unplanned ${medianMs.toFixed(2)} ms, median error ${percent(byMedian.median)}`);
  }
  document.kinds[kind] = {
    unplanned,
    medianMs,
    byMedian,
    alone,
    rows,
    absolute,
    relative,
    pairs: share(pairs),
    clear: share(pairs.filter(({ clear }) => clear)),
  };
}
write('report.json', document);
