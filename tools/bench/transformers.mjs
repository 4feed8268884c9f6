// @ts-check
/**
 * What `import '@cqil/plugin-transformers/register'` changes for an unchanged Transformers.js program: two processes, one
 * with that line and one without, take turns on the same work. Time for a token behind short and long contexts, time to
 * the first token of a second turn, how long the event loop waits, and whether the texts are the same. Prints a table, and
 * JSON with --json.
 *
 *   node tools/bench/transformers.mjs <model folder> [--dtype q4] [--rounds 5] [--contexts 128,2048] [--shared 1000]
 *     [--tokens 24] [--json]    (needs a build; --shared 0 leaves the second turn out)
 */
import { spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    dtype: { type: 'string' },
    rounds: { type: 'string', default: '5' },
    contexts: { type: 'string', default: '128,2048' },
    shared: { type: 'string', default: '1000' },
    tokens: { type: 'string', default: '24' },
    json: { type: 'boolean', default: false },
    register: { type: 'string', default: '@cqil/plugin-transformers/register' },
    // What a process of this bench is told by the one that started it.
    worker: { type: 'string' },
  },
});
const [folder] = positionals;
if (folder === undefined) {
  console.error('Usage: node tools/bench/transformers.mjs <model folder> [--dtype q4] [--rounds N] [--json]');
  process.exit(2);
}

/** Tokens of a second turn that are new. */
const NEW_TOKENS = 16;
/** Tokens of a first turn's answer. */
const ANSWER_TOKENS = 8;
/** The first tokens of each measurement are not counted: memory is new, and clocks are low. */
const WARM = 4;

/** @typedef {{ ms: number[], ids: number[], delayP99: number, delayMax: number }} Decoded */
/** @typedef {{ firstMs: number, secondMs: number, ids: number[] }} Turns */

const modelFolder = path.resolve(folder);
const dtype = values.dtype ?? dtypeOf(modelFolder);
if (values.worker === undefined) await main();
else await work(values.worker === 'backend');

/** @param {string} model */
function dtypeOf(model) {
  const files = readdirSync(path.join(model, 'onnx'));
  if (files.includes('model.onnx')) return 'fp32';
  const [file] = files.filter((name) => /^model_\w+\.onnx$/.test(name));
  return file === undefined ? 'fp32' : file.slice('model_'.length, -'.onnx'.length);
}

/** The process that has the model. @param {boolean} backend */
async function work(backend) {
  if (backend) await import(values.register);
  const { AutoModelForCausalLM, AutoTokenizer, DynamicCache, Tensor, env } = await import(
    '@huggingface/transformers'
  );
  const { monitorEventLoopDelay } = await import('node:perf_hooks');
  env.allowRemoteModels = false;
  const begin = performance.now();
  const options = /** @type {const} */ ({ dtype: /** @type {'q4'} */ (dtype) });
  const model = await AutoModelForCausalLM.from_pretrained(modelFolder, options);
  const loadMs = performance.now() - begin;
  const tokenizer = await AutoTokenizer.from_pretrained(modelFolder);
  const text = tokenizer.encode(ownText());

  /** @param {number[]} ids */
  const tensor = (ids) => new Tensor('int64', BigInt64Array.from(ids, BigInt), [1, ids.length]);
  /** @type {Map<number, Record<string, any>>} */
  const caches = new Map();

  /**
   * @param {number[]} prompt @param {number} count @param {object} [more]
   * @returns {Promise<{ ids: number[], ms: number[], cache: Record<string, any> }>} the new tokens, and when each came
   */
  async function generate(prompt, count, more = {}) {
    /** @type {number[]} */
    const ms = [];
    let last = performance.now();
    const streamer = {
      put() {
        const now = performance.now();
        ms.push(now - last);
        last = now;
      },
      end() {},
    };
    const { sequences, past_key_values } = /** @type {any} */ (
      await model.generate(
        /** @type {any} */ ({
          inputs: tensor(prompt),
          attention_mask: tensor(prompt.map(() => 1)),
          max_new_tokens: count,
          do_sample: false,
          eos_token_id: -1,
          return_dict_in_generate: true,
          streamer,
          ...more,
        }),
      )
    );
    const ids = sequences.tolist()[0].slice(prompt.length).map(Number);
    // The first report is the prompt itself.
    return { ids, ms: ms.slice(1), cache: past_key_values };
  }

  /** @type {Record<string, (...args: number[]) => Promise<unknown>>} */
  const jobs = {
    load: async () => ({ ms: loadMs, tokens: text.length }),
    /** Tokens behind a context that is computed once, and continued anew each round. */
    decode: async (context, tokens) => {
      const ids = text.slice(0, context);
      let cache = caches.get(context);
      if (cache === undefined) {
        ({ cache } = await generate(ids, 1));
        caches.set(context, cache);
      }
      const delay = monitorEventLoopDelay({ resolution: 1 });
      delay.enable();
      const { ms, ids: next } = await generate(text.slice(0, context + 1), tokens + WARM, {
        past_key_values: new DynamicCache({ ...cache }),
      });
      // The monitor takes notes by a timer: the last wait is seen when that comes.
      await setTimeout(20);
      delay.disable();
      const [delayP99, delayMax] = [delay.percentile(99) / 1e6, delay.max / 1e6];
      return { ms: ms.slice(WARM), ids: next, delayP99, delayMax };
    },
    /** A prompt, and another one that begins with it and its answer, as chat programs give them: as a whole. */
    turns: async (round, shared) => {
      const from = (round * 53) % (text.length - shared - NEW_TOKENS);
      const prompt = text.slice(from, from + shared - ANSWER_TOKENS);
      const first = await generate(prompt, ANSWER_TOKENS);
      const more = text.slice(from + shared, from + shared + NEW_TOKENS);
      const second = await generate([...prompt, ...first.ids, ...more], 4);
      return { firstMs: first.ms[0] ?? 0, secondMs: second.ms[0] ?? 0, ids: [...first.ids, ...second.ids] };
    },
  };

  for await (const line of createInterface({ input: process.stdin })) {
    const [name, ...args] = JSON.parse(line);
    process.stdout.write(`${JSON.stringify(await jobs[name]?.(...args))}\n`);
  }
}

/** The pages of this repository. */
function ownText() {
  const root = fileURLToPath(new URL('../..', import.meta.url));
  const pages = readdirSync(path.join(root, 'packages'))
    .sort()
    .map((name) => `packages/${name}/README.md`);
  return ['README.md', ...pages].map((page) => readFileSync(path.join(root, page), 'utf8')).join('\n');
}

/** @param {'stock' | 'backend'} kind */
function start(kind) {
  const own = fileURLToPath(import.meta.url);
  const args = [own, modelFolder, '--dtype', dtype, '--register', values.register, '--worker', kind];
  const child = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    /** @param {string} name @param {number[]} args @returns {Promise<any>} */
    ask: async (name, ...args) => {
      child.stdin.write(`${JSON.stringify([name, ...args])}\n`);
      const { value, done } = await lines.next();
      if (done) throw new Error(`the process "${kind}" ended`);
      return JSON.parse(value);
    },
    stop: () => child.stdin.end(),
  };
}

async function main() {
  const rounds = Number(values.rounds);
  const shared = Number(values.shared);
  const workers = { stock: start('stock'), backend: start('backend') };
  const kinds = /** @type {const} */ (['stock', 'backend']);
  try {
    const [{ ms: stockLoad, tokens }, { ms: backendLoad }] = [
      await workers.stock.ask('load'),
      await workers.backend.ask('load'),
    ];
    const contexts = values.contexts
      .split(',')
      .filter(Boolean)
      .map(Number)
      .filter((context) => context < tokens);
    const results = [];
    for (const context of contexts) {
      /** @type {Record<'stock' | 'backend', Decoded[]>} */
      const of = { stock: [], backend: [] };
      await inTurns(rounds, kinds, async (kind, round) => {
        const decoded = await workers[kind].ask('decode', context, Number(values.tokens));
        if (round >= 0) of[kind].push(decoded);
      });
      results.push({
        what: `a token at context ${context}`,
        unit: 'ms',
        ...compared(of, (decoded) => median(decoded.ms)),
        delayP99: {
          stock: summary(of.stock.map((d) => d.delayP99)),
          backend: summary(of.backend.map((d) => d.delayP99)),
        },
        delayMax: {
          stock: summary(of.stock.map((d) => d.delayMax)),
          backend: summary(of.backend.map((d) => d.delayMax)),
        },
      });
    }
    if (shared > 0) {
      /** @type {Record<'stock' | 'backend', Turns[]>} */
      const of = { stock: [], backend: [] };
      await inTurns(rounds, kinds, async (kind, round) => {
        const turns = await workers[kind].ask('turns', round + 1, shared);
        if (round >= 0) of[kind].push(turns);
      });
      const first = `the first token of a prompt of ${shared - ANSWER_TOKENS}`;
      const second = `the first token of a second turn, ${shared} shared`;
      results.push({ what: first, unit: 'ms', ...compared(of, ({ firstMs }) => firstMs) });
      results.push({ what: second, unit: 'ms', ...compared(of, ({ secondMs }) => secondMs) });
    }
    const machine = {
      cpu: os.cpus()[0]?.model ?? 'unknown',
      cores: os.availableParallelism(),
      node: process.version,
    };
    const report = {
      model: path.basename(modelFolder),
      dtype,
      rounds,
      machine,
      load: { stock: stockLoad, backend: backendLoad },
      results,
    };
    if (values.json) console.log(JSON.stringify(report, null, 2));
    else print(report);
  } finally {
    for (const worker of Object.values(workers)) worker.stop();
  }
}

/**
 * A warm-up round (-1) and the others; who begins changes from round to round.
 * @template {string} K
 * @param {number} rounds @param {readonly K[]} kinds @param {(kind: K, round: number) => Promise<void>} job
 */
async function inTurns(rounds, kinds, job) {
  for (let round = -1; round < rounds; round++) {
    for (const kind of round % 2 === 0 ? kinds : kinds.toReversed()) {
      const begin = performance.now();
      await job(kind, round);
      const seconds = ((performance.now() - begin) / 1000).toFixed(1);
      console.error(`${round < 0 ? 'warm-up' : `round ${round + 1}`}, ${kind}: ${seconds} s`);
    }
  }
}

/**
 * @template {{ ids: number[] }} T
 * @param {Record<'stock' | 'backend', T[]>} of @param {(one: T) => number} value
 */
function compared(of, value) {
  const [stock, backend] = [of.stock.map(value), of.backend.map(value)];
  return {
    stock: summary(stock),
    backend: summary(backend),
    // Round by round: what slows the machine down for a while slows both.
    speedup: summary(stock.map((ms, round) => ms / /** @type {number} */ (backend[round]))),
    same: of.stock.filter(({ ids }, round) => ids.join() === of.backend[round]?.ids.join()).length,
  };
}

/** @param {number[]} numbers */
function summary(numbers) {
  return { median: median(numbers), min: Math.min(...numbers), max: Math.max(...numbers) };
}

/** @param {number[]} numbers */
function median(numbers) {
  const sorted = numbers.toSorted((a, b) => a - b);
  const middle = (sorted.length - 1) / 2;
  const [below = 0, above = 0] = [sorted[Math.floor(middle)], sorted[Math.ceil(middle)]];
  return (below + above) / 2;
}

/** @param {any} report */
function print({ model, dtype, rounds, machine, load, results }) {
  console.log(`${model}, ${dtype}; ${machine.cores} cores of ${machine.cpu}, Node.js ${machine.node}`);
  console.log(`median of ${rounds} rounds in turns (least–most)\n`);
  /** @param {{ median: number, min: number, max: number }} s @param {number} [digits] */
  const show = (s, digits = 1) =>
    `${s.median.toFixed(digits)} (${s.min.toFixed(digits)}–${s.max.toFixed(digits)})`;
  /** @type {string[][]} */
  const rows = [['', 'Transformers.js', 'with the backend', 'faster', 'same text']];
  for (const { what, unit, stock, backend, speedup, same, delayP99, delayMax } of results) {
    rows.push([
      `${what}, ${unit}`,
      show(stock),
      show(backend),
      `${show(speedup, 2)}×`,
      `${same} of ${rounds}`,
    ]);
    if (delayP99 === undefined) continue;
    rows.push(['  event loop waits, 99 of 100, ms', show(delayP99.stock), show(delayP99.backend), '', '']);
    rows.push(['  event loop waits at most, ms', show(delayMax.stock), show(delayMax.backend), '', '']);
  }
  rows.push(['loading, ms', load.stock.toFixed(0), load.backend.toFixed(0), '', '']);
  const [heads = []] = rows;
  const widths = heads.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  for (const row of rows)
    console.log(
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    );
}
