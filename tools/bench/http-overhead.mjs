// @ts-check
/**
 * What a token costs more when it is streamed over HTTP than when it is taken from the engine's own iterator. One process
 * has the model and the server; this one is the client. Both ways take turns on the same prompt; a third, a model that
 * computes nothing behind the same server, says what the way itself takes, without the noise of computing. Prints a table,
 * and JSON with --json.
 *
 *   node tools/bench/http-overhead.mjs <model folder> [--rounds 15] [--tokens 96] [--threads N] [--json]   (needs a build)
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { connect } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: 'string', default: '15' },
    tokens: { type: 'string', default: '96' },
    threads: { type: 'string' },
    json: { type: 'boolean', default: false },
    // What the process that has the model is told by the one that started it.
    host: { type: 'boolean', default: false },
  },
});
const [folder] = positionals;
if (folder === undefined) {
  console.error(
    'Usage: node tools/bench/http-overhead.mjs <model folder> [--rounds N] [--tokens N] [--threads N] [--json]',
  );
  process.exit(2);
}

const TOKENS = Number(values.tokens);
const ROUNDS = Number(values.rounds);
/** Of a model that computes nothing. */
const EMPTY_TOKENS = 2000;
/** The first tokens of each way are not counted. */
const WARM = 8;
/** What each event begins with. */
const EVENT = 'data: ';
const PROMPT = 'The sea is wide, and the old sailor who looks at it says:';

if (values.host) await host();
else await main();

/** The process that has the model: serves it, and runs it by itself when it is told to. */
async function host() {
  const { createOpenAIHandler, openTextModel, serve } = await import('@cqil/plugin-openai');
  const session = values.threads === undefined ? {} : { session: { threads: Number(values.threads) } };
  const model = await openTextModel(String(folder), { id: 'model', ...session });
  /** @type {import('@cqil/plugin-openai').TextModel} */
  const empty = {
    id: 'empty',
    created: 0,
    contextLength: 1_000_000,
    encode: () => [1],
    encodeChat: () => [1],
    async *generate({ maxTokens }) {
      for (let i = 1; i < maxTokens; i++) yield { text: ' word', tokens: 1 };
      yield { text: ' word', tokens: 1, finishReason: 'length' };
    },
  };
  const server = await serve(createOpenAIHandler({ models: [model, empty] }), { port: 0 });
  const promptIds = await model.encode(PROMPT);
  process.on('message', async (/** @type {'run' | 'end'} */ what) => {
    if (what === 'end') {
      await server.close();
      await model.dispose();
      process.exit(0);
    }
    const times = [];
    const signal = new AbortController().signal;
    const request = { promptIds, maxTokens: TOKENS, temperature: 0, topP: 1, seed: 1, signal };
    // As the server asks for it: no end before the last token.
    const logitBias = new Map([[2, -100]]);
    for await (const piece of model.generate({ ...request, logitBias })) {
      if (piece.tokens > 0) times.push(performance.now());
    }
    process.send?.({ times });
  });
  process.send?.({ url: server.url });
}

/**
 * When each token came.
 *
 * @param {string} url
 * @param {string} model
 * @param {number} tokens
 */
async function overHttp(url, model, tokens) {
  const body = JSON.stringify({
    model,
    prompt: PROMPT,
    max_tokens: tokens,
    temperature: 0,
    stream: true,
    logit_bias: { 2: -100 },
  });
  // As little as a client can do: on a machine whose processors are all at work, what it does costs the model. So no parser,
  // no stream, no new memory.
  const { hostname, port } = new URL(url);
  /** @type {number[]} */
  const times = [];
  const buffer = Buffer.alloc(1 << 16);
  const socket = connect({
    host: hostname,
    port: Number(port),
    onread: {
      buffer,
      callback(count) {
        const now = performance.now();
        const bytes = buffer.subarray(0, count);
        for (let at = bytes.indexOf(EVENT); at !== -1; at = bytes.indexOf(EVENT, at + 1)) times.push(now);
        return true;
      },
    },
  });
  socket.write(
    [
      'POST /v1/completions HTTP/1.1',
      `Host: ${hostname}`,
      'Connection: close',
      'Content-Type: application/json',
      `Content-Length: ${Buffer.byteLength(body)}`,
      '',
      body,
    ].join('\r\n'),
  );
  await once(socket, 'close');
  // The last two are the reason of the end, and `[DONE]`.
  return times.slice(0, -2);
}

/**
 * Milliseconds from token to token, behind the warm-up: the median, which other work on the machine moves least. Where
 * nothing is computed several tokens come at once, and the mean says more.
 *
 * @param {readonly number[]} times
 * @param {'mean' | 'median'} kind
 */
function perToken(times, kind) {
  if (times.length < 2 * WARM) throw new Error(`Only ${times.length} tokens came.`);
  const gaps = times.slice(WARM).map((time, i) => time - (times[WARM + i - 1] ?? 0));
  return kind === 'median' ? quantile(gaps, 0.5) : gaps.reduce((sum, gap) => sum + gap, 0) / gaps.length;
}

/** @param {readonly number[]} numbers @param {number} share */
function quantile(numbers, share) {
  const sorted = [...numbers].sort((a, b) => a - b);
  const at = share * (sorted.length - 1);
  const low = Math.floor(at);
  const [a, b] = [sorted[low] ?? 0, sorted[Math.ceil(at)] ?? 0];
  return a + (b - a) * (at - low);
}

async function main() {
  const child = fork(fileURLToPath(import.meta.url), [...process.argv.slice(2), '--host'], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  const [{ url }] = await once(child, 'message');
  const engine = async () => {
    child.send('run');
    const [{ times }] = await once(child, 'message');
    return /** @type {number[]} */ (times);
  };
  const ways = {
    engine: async () => perToken(await engine(), 'median'),
    http: async () => perToken(await overHttp(url, 'model', TOKENS), 'median'),
    empty: async () => perToken(await overHttp(url, 'empty', EMPTY_TOKENS), 'mean'),
  };
  /** @type {Record<keyof typeof ways, number[]>} */
  const ms = { engine: [], http: [], empty: [] };
  for (const way of Object.values(ways)) await way();
  const names = /** @type {(keyof typeof ways)[]} */ (Object.keys(ways));
  for (let round = 0; round < ROUNDS; round++) {
    for (const name of round % 2 === 0 ? names : names.toReversed()) ms[name].push(await ways[name]());
  }
  const paired = ms.http.map((time, i) => time - (ms.engine[i] ?? 0));
  child.send('end');
  await once(child, 'exit');

  /** @param {readonly number[]} numbers */
  const summary = (numbers) => ({
    median: quantile(numbers, 0.5),
    quartiles: [quantile(numbers, 0.25), quantile(numbers, 0.75)],
  });
  const rows = {
    "engine's iterator": summary(ms.engine),
    'over HTTP': summary(ms.http),
    'difference, round by round': summary(paired),
    'a model that computes nothing, over HTTP': summary(ms.empty),
  };
  const machine = `${os.cpus()[0]?.model}, ${os.availableParallelism()} processors`;
  if (values.json) {
    const model = path.basename(String(folder));
    console.log(JSON.stringify({ machine, model, tokens: TOKENS, rounds: ROUNDS, ms: rows }, undefined, 2));
    return;
  }
  console.log(`${machine}; ${TOKENS} tokens, ${ROUNDS} rounds, ms a token`);
  for (const [name, { median, quartiles }] of Object.entries(rows)) {
    const [low, high] = quartiles.map((value) => value.toFixed(3));
    console.log(`${name.padEnd(44)}${median.toFixed(3).padStart(8)}   ${low} – ${high}`);
  }
}
