// @ts-check
/**
 * A long time under load, in one of two ways.
 *
 * Without `--generations`: many clients against the real server (`cqil serve`, a process of its own) over HTTP, with
 * requests of all kinds and lengths, some of which break off. Every greedy answer is compared to what the engine by itself
 * says; nothing may be lost; refusals are 429 with `Retry-After`, after which clients ask again; memory must not grow once
 * it has been warmed up; `/health`, asked by a process that does nothing else, must answer fast throughout.
 *
 * With `--generations N`: so many generations by the engine, several at a time, broken off at random.
 *
 * Prints a table, and JSON with --json; exits with 1 when anything is not as it should be.
 *
 *   npm run soak [-- <model folder>] [--clients 64] [--requests 500] [--drop 0.1] [--seed 1] [--threads N] [--parallel N]
 *     [--health-ms 50] [--growth 0.1] [--json FILE]
 *   npm run soak -- --generations 10000 [--clients 12] [--seed 1] [--growth 0.1] [--json FILE]     (both need a build)
 */
import { writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { soakEngine } from './soak/engine.mjs';
import { soakServer } from './soak/server.mjs';

const root = fileURLToPath(new URL('../../', import.meta.url));
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    clients: { type: 'string' },
    requests: { type: 'string', default: '500' },
    drop: { type: 'string', default: '0.1' },
    seed: { type: 'string', default: '1' },
    threads: { type: 'string' },
    parallel: { type: 'string' },
    'health-ms': { type: 'string', default: '50' },
    growth: { type: 'string', default: '0.1' },
    generations: { type: 'string' },
    json: { type: 'string' },
  },
});

const common = { seed: Number(values.seed), growth: Number(values.growth) };
const result =
  values.generations === undefined
    ? await soakServer(positionals[0] ?? path.join(root, '.cache/models/smollm2-135m-instruct-q4'), {
        ...common,
        clients: Number(values.clients ?? 64),
        requests: Number(values.requests),
        drop: Number(values.drop),
        healthMs: Number(values['health-ms']),
        serve: [
          ...(values.threads === undefined ? [] : ['--threads', values.threads]),
          ...(values.parallel === undefined ? [] : ['--parallel', values.parallel]),
        ],
      })
    : await soakEngine(positionals[0] ?? path.join(root, 'testdata/genai-fp32/llama/model.onnx'), {
        ...common,
        atOnce: Number(values.clients ?? 12),
        generations: Number(values.generations),
      });

const machine = `${os.cpus()[0]?.model}, ${os.availableParallelism()} processors`;
console.log(machine);
for (const [name, value] of Object.entries(result.table)) console.log(`${name.padEnd(34)}${value}`);
for (const fault of result.faults) console.error(`FAULT: ${fault}`);
if (values.json !== undefined) {
  writeFileSync(values.json, `${JSON.stringify({ machine, ...result }, undefined, 2)}\n`);
}
process.exitCode = result.faults.length === 0 ? 0 : 1;
