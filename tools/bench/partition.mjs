// @ts-check
/**
 * A planned model in one session beside the same plan in parts on several devices: milliseconds a token, all contenders
 * interleaved in an order that turns from round to round, and what an exchange between devices costs.
 *
 *   node tools/bench/partition.mjs <planned model> [--devices cpu:0,cpu:1] [--tokens 32] [--rounds 9] [--context 16]
 *     [--without async,first,…] [--trace FILE] [--json FILE]    (needs a build)
 *
 * Before anything is timed, every contender must give the tokens of the first. Times are medians with their quartiles;
 * a ratio is taken round by round against the single
 * session with as many threads as there are devices, pinned to the same processors.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { locateModel, partitionModel } from '@cqil/planner';
import { argmax, DecoderSession, machine, openPartitioned, PARTITION_FILE, spread } from '@cqil/runtime-gpu';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    devices: { type: 'string', default: 'cpu:0,cpu:1' },
    tokens: { type: 'string', default: '32' },
    rounds: { type: 'string', default: '9' },
    context: { type: 'string', default: '16' },
    without: { type: 'string', default: '' },
    spin: { type: 'string' },
    trace: { type: 'string' },
    json: { type: 'string' },
  },
});
const [folder] = positionals;
if (folder === undefined) {
  console.error(
    'Usage: node tools/bench/partition.mjs <planned model> [--devices cpu:0,cpu:1] [--trace FILE]',
  );
  process.exit(2);
}
const devices = values.devices.split(',');
const tokens = Number(values.tokens);
const rounds = Number(values.rounds);
const context = Number(values.context);
const spinMs = values.spin === undefined ? {} : { spinMs: Number(values.spin) };

/**
 * @typedef {import('@cqil/runtime-gpu').StepModel & { dispose(): Promise<void> }} Model
 * @typedef {{ name: string, open: () => Promise<Model> }} Contender
 */

const source = await locateModel(folder);
const scratch = mkdtempSync(path.join(os.tmpdir(), 'cqil-partition-'));
try {
  console.error('cutting');
  /** @param {boolean} everywhere */
  const cut = (everywhere) =>
    partitionModel(source, path.join(scratch, String(everywhere)), {
      devices,
      spread: everywhere,
      check: false,
    });
  const all = await cut(true);
  const first = await cut(false);
  const whole = path.join(scratch, 'whole');
  mkdirSync(whole);
  const beside = path.relative(whole, path.dirname(source.onnxFile));
  const { parts, groups, shapes, ...rest } = all.manifest;
  const { inputs, outputs } = rest;
  const part = {
    name: 'whole',
    file: path.join(beside, path.basename(source.onnxFile)),
    devices,
    holds: 'the whole graph',
    inputs: inputs.map((name) => ({ name })),
    outputs,
  };
  const manifest = { ...rest, weights: { folder: beside, files: [] }, parts: [part], shapes: {}, groups: [] };
  writeFileSync(path.join(whole, PARTITION_FILE), JSON.stringify(manifest));
  /** @param {number} threads */
  const single = (threads) => () => DecoderSession.open(source.onnxFile, { threads });
  /** @type {Contender[]} */
  const contenders = [
    // The same threads on the same processors as the parts have: what is left is the cut.
    { name: `one session, ${devices.length} pinned threads`, open: () => openPartitioned(whole, spinMs) },
    { name: `one session, ${devices.length} threads`, open: single(devices.length) },
    { name: 'one session, 1 thread', open: single(1) },
    { name: 'parts', open: () => openPartitioned(all.root, { trace: true, ...spinMs }) },
    {
      name: 'parts, trunk on the first device',
      open: () => openPartitioned(first.root, { trace: true, ...spinMs }),
    },
    { name: 'parts, async', open: () => openPartitioned(all.root, { transport: 'async', trace: true }) },
  ].filter(({ name }) => !values.without.split(',').some((word) => word !== '' && name.includes(word)));

  const opened = [];
  for (const { name, open } of contenders)
    opened.push({
      name,
      model: await open(),
      times: /** @type {number[]} */ ([]),
      typical: /** @type {number[]} */ ([]),
      prompts: /** @type {number[]} */ ([]),
    });

  /** Greedy; @param {Model} model @returns {Promise<{ ids: number[], ms: number, typicalMs: number, promptMs: number }>} */
  const decode = async (model) => {
    const prompt = Array.from({ length: context }, (_, i) => (i * 7919) % 20_000);
    const begun = performance.now();
    let { logits, cache } = await model.forward({
      inputIds: [prompt],
      keep: 'last',
      capacity: context + tokens + 1,
    });
    const into = new Float32Array(logits.dims[2]);
    const ids = [argmax(logits.data)];
    const start = performance.now();
    const promptMs = start - begun;
    const each = [];
    for (let i = 0; i < tokens; i++) {
      const before = performance.now();
      ({ logits, cache } = await model.forward({ inputIds: [[ids[i] ?? 0]], cache, keep: 'last', into }));
      ids.push(argmax(logits.data));
      each.push(performance.now() - before);
    }
    const ms = (performance.now() - start) / tokens;
    cache.dispose();
    return { ids, ms, typicalMs: spread(each).median, promptMs };
  };

  const expected = await decode(/** @type {Model} */ (opened[0]?.model));
  for (const { name, model } of opened) {
    const { ids } = await decode(model);
    const at = ids.findIndex((id, i) => id !== expected.ids[i]);
    if (at !== -1) throw new Error(`${name}: token ${at} is ${ids[at]}, not ${expected.ids[at]}`);
  }
  console.error(`${tokens + 1} tokens the same in all`);

  for (const { model } of opened) if ('clearTrace' in model) /** @type {any} */ (model).clearTrace();
  for (let round = 0; round < rounds; round++) {
    for (let i = 0; i < opened.length; i++) {
      const { model, times, typical, prompts } = /** @type {typeof opened[number]} */ (
        opened[(i + round) % opened.length]
      );
      // Threads of the one before stop looking for work.
      await new Promise((resolve) => setTimeout(resolve, 30));
      const { ms, typicalMs, promptMs } = await decode(model);
      typical.push(typicalMs);
      times.push(ms);
      prompts.push(promptMs);
    }
    console.error(`round ${round + 1}/${rounds}`);
  }

  const base = /** @type {typeof opened[number]} */ (opened[0]);
  const rows = opened.map(({ name, model, times, typical, prompts }) => {
    const exchanges = 'exchanges' in model ? /** @type {any} */ (model).exchanges() : [];
    /** Decoding only: a prompt's branches take longer. @type {(kind: RegExp) => any} */
    const of = (kind) => {
      const found = exchanges.filter((/** @type {any} */ { part }) => kind.test(part));
      return found.length === 0
        ? undefined
        : spread(found.map((/** @type {any} */ { overheadUs }) => overheadUs));
    };
    return {
      name,
      msPerToken: spread(times),
      promptMs: spread(prompts),
      speedup: spread(times.map((ms, i) => (base.times[i] ?? Number.NaN) / ms)),
      /** Of the median token of each round: what a machine with nothing else to do would give on the whole. */
      typicalMs: spread(typical),
      typicalSpeedup: spread(typical.map((ms, i) => (base.typical[i] ?? Number.NaN) / ms)),
      /** From the trunk to a branch on another device, which slept. */
      entryUs: of(/^group\.0\.branch\.[1-9]\d*(\.attention)?$/),
      /** Between branches. */
      exchangeUs: of(/^group\.(?!0\.branch\.\d+(\.attention)?$)/),
    };
  });
  const traced = opened.find(({ name }) => name === 'parts')?.model;
  if (values.trace !== undefined && traced !== undefined) {
    writeFileSync(values.trace, JSON.stringify(/** @type {any} */ (traced).trace()));
  }
  const result = {
    machine: machine(),
    load: os.loadavg(),
    model: folder,
    devices,
    tokens,
    context,
    groups: all.manifest.groups,
    rows,
  };
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(result, undefined, 2)}\n`);
  /** @param {{ median: number, q1: number, q3: number } | undefined} s @param {number} digits */
  const show = (s, digits) =>
    s === undefined ? '' : `${s.median.toFixed(digits)} (${s.q1.toFixed(digits)}–${s.q3.toFixed(digits)})`;
  console.table(
    rows.map((row) => ({
      contender: row.name,
      'ms a token': show(row.msPerToken, 2),
      'prompt ms': show(row.promptMs, 1),
      'speed-up': show(row.speedup, 3),
      'median token ms': show(row.typicalMs, 2),
      'its speed-up': show(row.typicalSpeedup, 3),
      'exchange µs': show(row.exchangeUs, 1),
      'first exchange µs': show(row.entryUs, 1),
    })),
  );
  for (const { model } of opened) await model.dispose();
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
