// @ts-check
import { fork, spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { ask } from './client.mjs';
import { MemoryCurve, mebibytes, residentBytes } from './memory.mjs';
import { Reference } from './reference.mjs';
import { soakRequests } from './requests.mjs';

const CLI = fileURLToPath(new URL('../../../packages/cli/dist/cli.js', import.meta.url));

/**
 * @typedef {object} ServerSoakOptions
 * @property {number} clients
 * @property {number} requests
 * @property {number} drop share of clients that go away
 * @property {number} healthMs what the 99th percentile of `/health` may be
 * @property {number} growth share by which memory may grow
 * @property {number} seed
 * @property {readonly string[]} serve more options of `cqil serve`
 */

/** @param {string} folder @param {ServerSoakOptions} options */
export async function soakServer(folder, options) {
  /** @type {string[]} */
  const faults = [];
  const server = await start(folder, options.serve);
  try {
    const context = await contextOf(server.url, server.model);
    const requests = soakRequests({
      count: options.requests,
      model: server.model,
      context,
      drop: options.drop,
      seed: options.seed,
    });
    const health = fork(fileURLToPath(new URL('./health.mjs', import.meta.url)), [server.url]);
    const curve = new MemoryCurve();
    let done = 0;
    const sampler = setInterval(() => curve.add(done / requests.length, residentBytes(server.pid)), 250);
    const began = performance.now();
    /** @type {import('./client.mjs').Outcome[]} */
    const outcomes = [];
    let next = 0;
    await Promise.all(
      Array.from({ length: options.clients }, async () => {
        for (let i = next++; i < requests.length; i = next++) {
          const request = requests[i];
          if (request !== undefined) outcomes[i] = await ask(server.url, request);
          done += 1;
          if (done % 50 === 0) {
            console.error(
              `${done} of ${requests.length} in ${((performance.now() - began) / 1000).toFixed(0)} s`,
            );
          }
        }
      }),
    );
    const seconds = (performance.now() - began) / 1000;
    clearInterval(sampler);
    health.send('end');
    const [{ answers, late }] = await once(health, 'message');
    await settled(server.url, faults);

    const answered = outcomes.filter(({ what }) => what === 'answered');
    const dropped = outcomes.filter(({ what }) => what === 'dropped');
    for (const [i, { what, why }] of outcomes.entries()) {
      if (what === 'failed') faults.push(`request ${i} (${requests[i]?.kind}): ${why}`);
    }
    const lost = requests.length - outcomes.filter((outcome) => outcome !== undefined).length;
    if (lost > 0) faults.push(`${lost} requests were lost`);
    const checked = await compare(folder, requests, outcomes, faults);

    const ms = answers.map((/** @type {{ ms: number }} */ answer) => answer.ms);
    const wrong = answers.filter((/** @type {{ status: number }} */ { status }) => status !== 200).length;
    if (wrong > 0) faults.push(`/health failed ${wrong} times`);
    const p99 = quantile(ms, 0.99);
    if (!(p99 <= options.healthMs)) faults.push(`/health took ${p99.toFixed(1)} ms at the 99th percentile`);
    const memory = curve.verdict(options.growth);
    if (!memory.flat) faults.push(`memory grew from ${mebibytes(memory.warm)} to ${mebibytes(memory.end)}`);

    const refusals = outcomes.reduce((sum, outcome) => sum + outcome.refusals, 0);
    const tokens = sum(answered.map(({ timings }) => timings?.predicted_n ?? 0));
    const read = sum(answered.map(({ timings }) => timings?.prompt_n ?? 0));
    const times = (/** @type {readonly number[]} */ numbers) =>
      [0.5, 0.99, 1].map((share) => quantile(numbers, share).toFixed(1)).join(', ');
    return {
      faults,
      numbers: {
        model: path.basename(folder),
        ...options,
        seconds,
        answered: answered.length,
        dropped: dropped.length,
        refusals,
        tokens,
        read,
        ...checked,
        health: { asked: ms.length, p50: quantile(ms, 0.5), p99, max: quantile(ms, 1) },
        proberLateMs: { p50: quantile(late, 0.5), p99: quantile(late, 0.99), max: quantile(late, 1) },
        memory,
      },
      table: {
        requests: `${requests.length} of ${options.clients} clients in ${seconds.toFixed(1)} s`,
        'answered, broken off, lost': `${answered.length}, ${dropped.length}, ${lost}`,
        'refused with 429, asked again': String(refusals),
        'tokens read, generated': `${read}, ${tokens} (${(tokens / seconds).toFixed(0)} a second)`,
        'greedy answers compared': `${checked.same} the same, ${checked.tie} part at a tie, ${checked.rounding} at gaps up to ${checked.widestGap.toFixed(3)} (kernels differ by ${checked.roundingOfKernels.toFixed(3)}), ${checked.different} different`,
        '/health, ms (50 %, 99 %, most)': `${times(ms)} of ${ms.length}`,
        'prober late by, ms (the same)': times(late),
        'memory behind a third, middle, end': `${[memory.warm, memory.middle, memory.end].map(mebibytes).join(', ')} (${(100 * memory.growth).toFixed(1)} %)`,
      },
    };
  } finally {
    await server.stop();
  }
}

/** Starts `cqil serve` and waits until the model is there. @param {string} folder @param {readonly string[]} more */
async function start(folder, more) {
  const args = ['serve', folder, '--port', '0', '--no-variants', '--metrics', '--log-level', 'info', ...more];
  const child = spawn(process.execPath, [CLI, ...args], { stdio: ['ignore', 'ignore', 'pipe'] });
  // However this process ends, the server does not outlive it.
  process.once('exit', () => child.kill());
  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(1));
  const ended = once(child, 'exit');
  let text = '';
  const url = await new Promise((resolve, reject) => {
    child.stderr.setEncoding('utf8').on('data', (more) => {
      text += more;
      const found = /"url":"([^"]+)".*"msg":"listening"/.exec(text);
      if (found !== null) resolve(found[1]);
      // Of a log of many requests only what may be a fault is kept.
      if (found !== null || text.length > 100_000) text = text.slice(-2000);
    });
    ended.then(() => reject(new Error(`cqil serve ended: ${text}`)));
  });
  const ready = () =>
    fetch(`${url}/health`).then(
      ({ status }) => status === 200,
      () => false,
    );
  while (!(await ready())) await pause(50);
  const { data } = /** @type {{ data: { id: string }[] }} */ (await (await fetch(`${url}/v1/models`)).json());
  return {
    url: String(url),
    pid: Number(child.pid),
    model: String(data[0]?.id),
    async stop() {
      child.kill('SIGTERM');
      await ended;
    },
  };
}

/** @param {string} url @param {string} model */
async function contextOf(url, model) {
  const response = await fetch(`${url}/tokenize`, {
    method: 'POST',
    body: JSON.stringify({ model, prompt: 'x' }),
  });
  const { max_model_len: context } = /** @type {{ max_model_len: number }} */ (await response.json());
  return context;
}

/** After the last request nothing may be waiting or running. @param {string} url @param {string[]} faults */
async function settled(url, faults) {
  for (let i = 0; i < 100; i++) {
    const metrics = await (await fetch(`${url}/metrics`)).text();
    const left = [...metrics.matchAll(/^cqil_requests_(waiting|running)\{[^}]*\} (\d+)$/gm)];
    if (left.length > 0 && left.every(([, , count]) => count === '0')) return;
    await pause(50);
  }
  faults.push('requests are still waiting or running at the end');
}

/**
 * @param {string} folder
 * @param {readonly import('./requests.mjs').SoakRequest[]} requests
 * @param {readonly import('./client.mjs').Outcome[]} outcomes
 * @param {string[]} faults
 */
async function compare(folder, requests, outcomes, faults) {
  const reference = await Reference.open(folder);
  const counts = { same: 0, tie: 0, rounding: 0, different: 0 };
  let widest = 0;
  try {
    const answered = [...requests.entries()].filter(
      ([i, { greedy }]) => greedy && outcomes[i]?.what === 'answered',
    );
    await reference.prepare(answered.map(([, request]) => request));
    for (const [i, request] of answered) {
      const { what, gap, wanted, got } = await reference.compare(request, outcomes[i]?.text ?? '');
      counts[what] += 1;
      if (what !== 'same' && gap > widest) widest = gap;
      if (what !== 'different') continue;
      const [before, after] = [wanted, got].map((text) => JSON.stringify(text));
      faults.push(`request ${i} (${request.kind}) says ${after} for ${before}, at a gap of ${gap}`);
    }
    return {
      ...counts,
      references: reference.size,
      roundingOfKernels: reference.rounding,
      widestGap: widest,
    };
  } finally {
    await reference.dispose();
  }
}

/** @param {readonly number[]} numbers */
function sum(numbers) {
  return numbers.reduce((total, one) => total + one, 0);
}

/** @param {readonly number[]} numbers @param {number} share */
function quantile(numbers, share) {
  const sorted = [...numbers].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
}
