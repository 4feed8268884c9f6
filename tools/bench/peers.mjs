// @ts-check
/**
 * Our decode loop beside what people would run otherwise, on the same weights: onnxruntime-node by its own interface,
 * llama.cpp, ONNX Runtime GenAI; and a model beside its planned forms. All engines take turns in one run, each in a
 * process of its own, in an order that turns from round to round.
 *
 *   node tools/bench/peers.mjs --model NAME=FOLDER [--model …] [--gguf FILE] [--genai PYTHON] [--onnxruntime-node]
 *     [--ort-library FILE] [--context 128,2048] [--decode 32] [--rounds 7] [--warmup 2] [--threads 2] [--json FILE]
 *
 * --gguf needs node-llama-cpp (`npm i --ignore-scripts node-llama-cpp` in a folder that CQIL_BENCH_MODULES names);
 * --genai the path of a Python that has onnxruntime-genai and onnx; --ort-library another build of ONNX Runtime, such as
 * the one in that Python's onnxruntime, for the first model on our loop once more. Times are medians with their quartiles; a ratio is
 * taken round by round against the first model on our loop, whose tokens are also those that the others' are compared
 * with.
 */
import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { locateModel } from '@cqil/planner';
import { machine, seededRandom, spread } from '@cqil/runtime-gpu';

const { values } = parseArgs({
  options: {
    model: { type: 'string', multiple: true, default: [] },
    gguf: { type: 'string' },
    genai: { type: 'string' },
    'ort-library': { type: 'string' },
    'onnxruntime-node': { type: 'boolean', default: false },
    context: { type: 'string', default: '128,2048' },
    decode: { type: 'string', default: '32' },
    rounds: { type: 'string', default: '7' },
    warmup: { type: 'string', default: '2' },
    threads: { type: 'string', default: '2' },
    vocabulary: { type: 'string', default: '40000' },
    json: { type: 'string' },
  },
});
if (values.model.length === 0) {
  console.error('Usage: node tools/bench/peers.mjs --model NAME=FOLDER [--gguf FILE] [--genai PYTHON] …');
  process.exit(2);
}
const contexts = values.context.split(',').map(Number);
const decode = Number(values.decode);
const longest = String(Math.max(...contexts) + decode + 1);
/** @param {string} name */
const beside = (name) => fileURLToPath(new URL(`peers/${name}`, import.meta.url));

/** @type {{ name: string, command: string, args: string[], env?: Record<string, string> }[]} */
const engines = [];
for (const [i, named] of values.model.entries()) {
  const at = named.indexOf('=');
  const name = at < 0 ? path.basename(named) : named.slice(0, at);
  const { onnxFile } = await locateModel(at < 0 ? named : named.slice(at + 1));
  engines.push({ name, command: process.execPath, args: [beside('cqil.mjs'), onnxFile, values.threads] });
  if (i > 0) continue;
  if (values['onnxruntime-node']) {
    const args = [beside('cqil.mjs'), onnxFile, values.threads, 'node'];
    engines.push({ name: `${name}, onnxruntime-node`, command: process.execPath, args });
  }
  const library = values['ort-library'];
  if (library !== undefined) {
    const args = [beside('cqil.mjs'), onnxFile, values.threads];
    const env = { CQIL_ORT_LIBRARY: library };
    engines.push({ name: `${name}, ${path.basename(library)}`, command: process.execPath, args, env });
  }
  if (values.genai !== undefined) {
    const args = [beside('ort-genai.py'), onnxFile, values.threads, longest];
    engines.push({ name: `${name}, ORT GenAI`, command: values.genai, args });
  }
}
if (values.gguf !== undefined) {
  const args = [beside('llama-cpp.mjs'), values.gguf, values.threads, longest];
  engines.push({ name: 'llama.cpp', command: process.execPath, args });
}

/** @param {{ name: string, command: string, args: string[], env?: Record<string, string> }} engine */
function start({ name, command, args, env = {} }) {
  const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'], env: { ...process.env, ...env } });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const next = async () => {
    for (;;) {
      const { value, done } = await lines.next();
      if (done) throw new Error(`${name} ended without an answer`);
      if (!value.startsWith('@ ')) continue;
      const document = JSON.parse(value.slice(2));
      if (document.error !== undefined) throw new Error(`${name}: ${document.error}`);
      return document;
    }
  };
  return {
    name,
    next,
    /** @param {import('./peers/engine.mjs').Request} request */
    ask(request) {
      child.stdin.write(`${JSON.stringify(request)}\n`);
      return next();
    },
    stop() {
      child.stdin.end();
      child.kill();
    },
  };
}

const running = [];
for (const engine of engines) {
  const process_ = start(engine);
  const { loadMs } = await process_.next();
  running.push({ ...process_, loadMs });
  console.error(`loaded ${engine.name}`);
}

const rounds = Number(values.rounds);
const warmup = Number(values.warmup);
const results = [];
for (const context of contexts) {
  const random = seededRandom(context);
  const prompt = Array.from({ length: context }, () => Math.floor(random() * Number(values.vocabulary)));
  /** @type {{ prefill: number[], token: number[], ids: number[], rss: number }[]} */
  const rows = running.map(() => ({ prefill: [], token: [], ids: [], rss: 0 }));
  for (let round = 0; round < warmup + rounds; round++) {
    for (let k = 0; k < running.length; k++) {
      const i = (k + round) % running.length;
      const engine = running[i];
      const row = rows[i];
      if (engine === undefined || row === undefined) continue;
      const answer = await engine.ask({ prompt, decode });
      row.ids = answer.ids;
      row.rss = answer.rss;
      if (round < warmup) continue;
      row.prefill.push(answer.prefillMs);
      row.token.push(spread(answer.tokenMs).median);
    }
    console.error(`context ${context}: round ${round + 1} of ${warmup + rounds}`);
  }
  const ratio = (/** @type {number[]} */ own, /** @type {number[]} */ base) =>
    spread(own.map((value, at) => value / (base[at] ?? Number.NaN)));
  for (const [i, engine] of running.entries()) {
    const [row, first] = [rows[i], rows[0]];
    if (row === undefined || first === undefined) continue;
    const parted = row.ids.findIndex((id, at) => id !== first.ids[at]);
    results.push({
      engine: engine.name,
      context,
      loadMs: engine.loadMs,
      rss: row.rss,
      prefillMs: spread(row.prefill),
      tokenMs: spread(row.token),
      prefillRatio: ratio(row.prefill, first.prefill),
      tokenRatio: ratio(row.token, first.token),
      sameTokens: parted < 0 ? row.ids.length : parted,
    });
  }
}
for (const engine of running) engine.stop();

const settings = { contexts, decode, rounds, warmup, threads: Number(values.threads) };
const document = { machine: machine(), settings, results };
if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(document, null, 2)}\n`);
const ms = (/** @type {import('@cqil/runtime-gpu').Spread} */ { median, q1, q3 }) =>
  `${median.toFixed(1)} (${q1.toFixed(1)}–${q3.toFixed(1)})`;
console.log(`| engine | context | prefill, ms | × | ms a token | × | same tokens | memory |`);
console.log('| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |');
for (const row of results) {
  console.log(
    `| ${row.engine} | ${row.context} | ${ms(row.prefillMs)} | ${row.prefillRatio.median.toFixed(2)} | ${ms(row.tokenMs)} | ${row.tokenRatio.median.toFixed(2)} | ${row.sameTokens} of ${decode} | ${(row.rss / 2 ** 20).toFixed(0)} MB |`,
  );
}
