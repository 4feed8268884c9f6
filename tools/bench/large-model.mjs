/**
 * How much memory rewriting a large model takes: adds sparse, made-up weights to a small decoder until its
 * external data is 5 GB, rewrites it with the command line, and samples the child's anonymous resident memory.
 *
 *   node tools/bench/large-model.mjs [gigabytes]      (needs a build; Linux only)
 */
import { spawn } from 'node:child_process';
import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { DataType, FileRange, readModel, Tensor, writeModel } from '@cqil/planner';

const repository = fileURLToPath(new URL('../..', import.meta.url));
const gigabytes = Number(process.argv[2] ?? 5);
const tensors = Math.ceil(gigabytes * 2);
const bytes = 512 * 1024 * 1024;

const folder = await mkdtemp(path.join(os.tmpdir(), 'cqil-large-'));
try {
  const file = path.join(folder, 'model', 'model.onnx');
  await makeModel(file);
  await writeFile(
    path.join(folder, 'plan.json'),
    JSON.stringify({ version: 1, layers: 6, groups: [{ layers: [2, 3], bypass: 1 }] }),
  );
  const result = await rewrite(file);
  console.log(JSON.stringify({ externalGigabytes: (tensors * bytes) / 2 ** 30, ...result }, undefined, 2));
  if (result.exitCode !== 0 || result.peakAnonymousMiB >= 1024) process.exitCode = 1;
} finally {
  await rm(folder, { recursive: true, force: true });
}

async function makeModel(file) {
  const model = (await readModel(path.join(repository, 'testdata/genai-fp32/llama/model.onnx'))).clone();
  const sparse = path.join(folder, 'sparse');
  const handle = await open(sparse, 'w');
  await handle.truncate(tensors * bytes);
  await handle.close();
  for (let i = 0; i < tensors; i++) {
    const data = new FileRange(sparse, i * bytes, bytes);
    model.graph.addInitializer(Tensor.create(`made_up.${i}`, DataType.FLOAT, [bytes / 4], data));
  }
  await writeModel(model, file, { external: { location: 'model.onnx.data' } });
}

async function rewrite(file) {
  const started = performance.now();
  const child = spawn(
    process.execPath,
    [
      'packages/cli/dist/cli.js',
      'rewrite',
      file,
      '--plan',
      path.join(folder, 'plan.json'),
      '--out',
      path.join(folder, 'out'),
      '--no-verify',
    ],
    { cwd: repository, stdio: ['ignore', 'ignore', 'inherit'] },
  );
  let peak = 0;
  const timer = setInterval(async () => {
    const status = await readFile(`/proc/${child.pid}/status`, 'utf8').catch(() => '');
    peak = Math.max(peak, Number(/RssAnon:\s+(\d+)/.exec(status)?.[1] ?? 0));
  }, 50);
  const exitCode = await new Promise((resolve) => child.on('exit', resolve));
  clearInterval(timer);
  return {
    exitCode,
    peakAnonymousMiB: Math.round(peak / 1024),
    seconds: Math.round((performance.now() - started) / 100) / 10,
  };
}
