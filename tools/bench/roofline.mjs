// @ts-check
/**
 * Where the time of a token goes, and how far that is from what this machine's memory allows: for the unplanned model and
 * plans of it, what one plain product takes that reads as many bytes as a token does (weights, scales, keys and values), what
 * the model's products, attentions and small kernels take by themselves, each measured by shape, what starting them takes, and
 * what a token takes in fact.
 *
 *   node tools/bench/roofline.mjs <model> [<planned model>...] [--threads N] [--contexts 128,2048] [--tokens 32] [--rounds 7]
 *     (needs a build)
 *
 * A planned model is a folder with a `cqil.plan.json`; models take turns in a round. The plain product has weights of 4 bits
 * in blocks of 32, as `MatMulNBits` reads them, in one matrix of 4096 inputs. Kernels are measured once, before the rounds.
 */
import { readFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { buildProgram, kernelCost, onOneDevice, parsePlan, parseProfile } from '@cqil/core';
import { locateModel, shapeOfModel } from '@cqil/planner';
import { argmax, DecoderSession, machine, measureProfile, spread, workOf } from '@cqil/runtime-gpu';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    threads: { type: 'string', default: String(os.availableParallelism()) },
    contexts: { type: 'string', default: '128,2048' },
    tokens: { type: 'string', default: '32' },
    rounds: { type: 'string', default: '7' },
  },
});
/** @param {string} message @returns {never} */
function fail(message) {
  throw new Error(message);
}
const [folder, ...planned] = positionals;
if (folder === undefined) {
  console.error(
    'Usage: node tools/bench/roofline.mjs <model> [<planned model>...] [--threads N] [--rounds 7]',
  );
  process.exit(2);
}
const threads = Number(values.threads);
const tokens = Number(values.tokens);
const contexts = values.contexts.split(',').map(Number);

const source = await locateModel(folder);
const shape = await shapeOfModel(source);
const models = await Promise.all(
  [folder, ...planned].map(async (place, i) => {
    const { onnxFile, root } = await locateModel(place);
    const plan =
      i === 0
        ? parsePlan({ version: 1, layers: shape.layers, groups: [] })
        : parsePlan(readFileSync(path.join(root, 'cqil.plan.json'), 'utf8'), { layers: shape.layers });
    return { name: path.basename(place), onnxFile, plan };
  }),
);
const widths = models.flatMap(({ plan }) =>
  plan.groups.map(({ layers, form }) => (form === 'wide' ? layers.length : 1)),
);

// The kernels of these models and no others, behind each context, and the plain product.
const works = contexts.map((context) => workOf(shape, context, [...new Set([1, ...widths])]));
/** @template T @param {readonly T[]} found @returns {T[]} */
const distinct = (found) => [...new Map(found.map((one) => [JSON.stringify(one), one])).values()];
/** In blocks of 32: a code of 4 bits, and a share of a scale in float32. */
const PLAIN_BITS = 5;
const BYTES = 100e6;
const plain = {
  m: 1,
  k: 4096,
  n: Math.ceil((8 * BYTES) / PLAIN_BITS / 4096),
  weights: /** @type {const} */ ('int4'),
};
const profile = parseProfile(
  await measureProfile({
    products: [plain, ...distinct(works.flatMap(({ products }) => products.filter(({ m }) => m === 1)))],
    attentions: distinct(
      works.flatMap(({ attentions = [] }) => attentions.filter(({ tokens }) => tokens === 1)),
    ),
    norms: [{ rows: 1, width: shape.hidden }],
    threads,
    onProgress: ({ done, total }) => {
      if (done % 10 === 0) console.error(`kernels: ${done} of ${total}`);
    },
  }),
);
const [device = fail('a profile without a device')] = profile.devices;
const streamed =
  device.products?.find(({ k, n }) => k === plain.k && n === plain.n) ??
  fail('the plain product was not measured');
const bytesPerSecond = BYTES / streamed.seconds;

/** What a token's kernels move and take, by kind, in milliseconds. @param {import('@cqil/core').Plan} plan @param {number} context */
function kernelsOf(plan, context) {
  const pass = { tokens: 1, context };
  const { ops } = buildProgram({ plan, shape, profile, placement: onOneDevice(device.id), pass });
  const found = { bytes: 0, products: 0, head: 0, attention: 0, small: 0, nodes: 0, starts: 0 };
  for (const op of ops) {
    if (op.kind !== 'kernels') continue;
    if (op.startsRun) found.starts += 1000 * device.runSeconds;
    for (const kernel of op.kernels) {
      const { launchSeconds, fixedSeconds, workSeconds } = kernelCost(kernel, device);
      const kind =
        kernel.name === 'head'
          ? 'head'
          : kernel.product !== undefined
            ? 'products'
            : kernel.attention !== undefined
              ? 'attention'
              : 'small';
      found[kind] += 1000 * (fixedSeconds + workSeconds);
      found.starts += 1000 * launchSeconds;
      found.nodes++;
      if (kind !== 'small') found.bytes += kernel.bytes;
    }
  }
  return found;
}

/** Milliseconds a token. @param {DecoderSession} session @param {number} context */
async function decode(session, context) {
  const inputIds = [Array.from({ length: context }, (_, i) => (i * 7919) % 20_000)];
  const first = await session.forward({ inputIds, keep: 'last', capacity: context + tokens });
  const into = new Float32Array(first.logits.dims[2]);
  let { cache } = first;
  const began = performance.now();
  for (let i = 0; i < tokens; i++) {
    const result = await session.forward({ inputIds: [[i + 5]], cache, keep: 'last', into });
    cache = result.cache;
    argmax(result.logits.data);
  }
  const ms = (performance.now() - began) / tokens;
  cache.dispose();
  return ms;
}

const sessions = await Promise.all(models.map(({ onnxFile }) => DecoderSession.open(onnxFile, { threads })));
/** @type {number[][][]} by context, model */
const times = contexts.map(() => models.map(() => []));
try {
  for (let round = -1; round < Number(values.rounds); round++) {
    const order = [...models.keys()];
    if (round % 2 !== 0) order.reverse();
    for (const [c, context] of contexts.entries()) {
      for (const i of order) {
        const ms = await decode(/** @type {DecoderSession} */ (sessions[i]), context);
        // The first round warms up.
        if (round >= 0) times[c]?.[i]?.push(ms);
      }
    }
    console.error(`round ${round + 1} of ${values.rounds}`);
  }
} finally {
  await Promise.all(sessions.map((session) => session.dispose()));
}

console.log(JSON.stringify({ ...machine(), threads }));
console.log(
  `a plain product of ${BYTES / 1e6} MB: ${(1000 * streamed.seconds).toFixed(2)} ms, ` +
    `${(bytesPerSecond / 1e9).toFixed(1)} GB/s; a node ${(1e6 * device.launchSeconds).toFixed(2)} µs, ` +
    `a run ${(1e6 * device.runSeconds).toFixed(0)} µs`,
);
const ms = (/** @type {number} */ value) => value.toFixed(2);
console.table(
  contexts.flatMap((context, c) =>
    models.map(({ name, plan }, i) => {
      const { bytes, products, head, attention, small, nodes, starts } = kernelsOf(plan, context);
      const { median, q1, q3 } = spread(times[c]?.[i] ?? []);
      const limit = (1000 * bytes) / bytesPerSecond;
      return {
        model: name,
        context,
        MB: (bytes / 1e6).toFixed(1),
        limit: ms(limit),
        products: ms(products),
        head: ms(head),
        attention: ms(attention),
        small: ms(small),
        starts: `${ms(starts)} (${nodes} nodes)`,
        sum: ms(products + head + attention + small + starts),
        'ms a token': `${ms(median)} (${ms(q1)}–${ms(q3)})`,
        'of limit': `${((100 * limit) / median).toFixed(0)} %`,
      };
    }),
  ),
);
