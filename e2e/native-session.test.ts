import { execFile } from 'node:child_process';
import { copyFile, mkdtemp, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

/** The native session in processes of its own: what it does to a process shows nowhere else. */

const root = fileURLToPath(new URL('..', import.meta.url));
const MODEL = path.join(root, 'testdata/genai-fp32/llama/model.onnx');
const RUNTIME = path.join(root, 'packages/runtime-gpu/dist/index.js');

/** Runs a module; it answers with one line of JSON. */
async function answer(program: string, env: NodeJS.ProcessEnv = {}, flags: string[] = []): Promise<unknown> {
  const { stdout } = await promisify(execFile)(
    process.execPath,
    [...flags, '--input-type=module', '-e', program, RUNTIME, MODEL],
    { env: { ...process.env, ...env }, timeout: 120_000 },
  );
  return JSON.parse(stdout) as unknown;
}

const BOTH = `
import { readFileSync } from 'node:fs';
const [runtime, model] = process.argv.slice(1);
const { DecoderSession } = await import(runtime);
const ids = [5, 9, 300, 41];
const results = [];
for (const binding of ['native', 'node']) {
  const decoder = await DecoderSession.open(model, { binding, threads: 1 });
  const { logits } = await decoder.forward({ inputIds: [ids] });
  results.push({ binding: decoder.session.binding, data: [...logits.data] });
  await decoder.dispose();
}
const libraries = [...new Set(readFileSync('/proc/self/maps', 'utf8').split('\\n')
  .map((line) => line.split(/\\s+/)[5] ?? '').filter((file) => /onnxruntime\\.so|libother/.test(file)))];
console.log(JSON.stringify({
  bindings: results.map(({ binding }) => binding),
  equal: JSON.stringify(results[0].data) === JSON.stringify(results[1].data),
  libraries,
}));
`;

const FALLBACK = `
const [runtime, model] = process.argv.slice(1);
const warnings = [];
process.on('warning', ({ code, message }) => warnings.push({ code, message }));
const { openSession } = await import(runtime);
const bindings = [];
for (let i = 0; i < 2; i++) {
  const session = await openSession(model);
  bindings.push(session.binding);
  await session.dispose();
}
const asked = await openSession(model, { binding: 'native' }).catch(({ code }) => code);
await new Promise(setImmediate);
console.log(JSON.stringify({ bindings, warnings, asked }));
`;

/** Everything that can be collected is, all the time, while runs go on. */
const COLLECTED = `
const [runtime, model] = process.argv.slice(1);
const { DecoderSession } = await import(runtime);
const timer = setInterval(() => global.gc(), 1);
const decoder = await DecoderSession.open(model, { threads: 1 });
const node = await DecoderSession.open(model, { threads: 1, binding: 'node' });
let wrong = 0;
for (let round = 0; round < 40; round++) {
  const prompt = Array.from({ length: 3 + (round % 7) }, (_, i) => (i * 31 + round) % 500);
  const steps = async (decoder) => {
    let step = await decoder.forward({ inputIds: [prompt] });
    const sums = [];
    for (let i = 0; i < 6; i++) {
      step = await decoder.forward({ inputIds: [[(i * 17 + round) % 500]], cache: step.cache });
      await new Promise(setImmediate);
      sums.push(step.logits.data.reduce((a, b) => a + b, 0));
    }
    return JSON.stringify(sums);
  };
  const [a, b, c] = await Promise.all([steps(decoder), steps(decoder), steps(node)]);
  if (a !== c || b !== c) wrong += 1;
}
clearInterval(timer);
await decoder.dispose();
await node.dispose();
console.log(JSON.stringify({ wrong }));
`;

/**
 * Sessions, caches and results that nobody disposes of, and some that somebody does. The first loads fill the C library's
 * heaps, one for each thread that computes; after some tens of them nothing may grow.
 */
const MEMORY = `
const [runtime, model] = process.argv.slice(1);
const { DecoderSession } = await import(runtime);
const settle = async () => {
  for (let i = 0; i < 5; i++) { global.gc(); await new Promise((done) => setTimeout(done, 20)); }
  return process.memoryUsage().rss;
};
const load = async () => {
  const decoder = await DecoderSession.open(model, { threads: 1 });
  const step = await decoder.forward({ inputIds: [[1, 2, 3]], capacity: 200 });
  const next = await decoder.forward({ inputIds: [[4]], cache: step.cache });
  if (Math.random() < 0.5) next.cache.dispose();
  await decoder.dispose();
};
for (let i = 0; i < 80; i++) await load();
const loads = [await settle()];
for (let round = 0; round < 3; round++) {
  for (let i = 0; i < 60; i++) await load();
  loads.push(await settle());
}
const decoder = await DecoderSession.open(model, { threads: 1 });
let aborted = 0;
const generate = async (i) => {
  const controller = new AbortController();
  const steps = 1 + (i % 5);
  let step = { cache: undefined };
  try {
    for (let n = 0; n < steps; n++) {
      if (i % 3 === 0) setTimeout(() => controller.abort(), Math.random() * 2);
      step = await decoder.forward({ inputIds: [[1 + n, 2, 3]], signal: controller.signal, ...(step.cache ? { cache: step.cache } : {}) });
    }
  } catch (error) {
    if (error.name !== 'AbortError') throw error;
    aborted += 1;
  }
};
for (let i = 0; i < 200; i++) await generate(i);
const generations = [await settle()];
for (let round = 0; round < 3; round++) {
  for (let i = 0; i < ROUNDS; i += 4) await Promise.all([0, 1, 2, 3].map((k) => generate(i + k)));
  generations.push(await settle());
}
await decoder.dispose();
console.log(JSON.stringify({ loads, generations, aborted }));
`.replace('ROUNDS', process.env.CQIL_SOAK_ROUNDS ?? '600');

describe('a native session', () => {
  let folder: string;
  let other: string;
  beforeAll(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'cqil-native-'));
    other = path.join(folder, 'libother.so');
    const packaged = path.dirname(createRequire(RUNTIME).resolve('onnxruntime-node/package.json'));
    await copyFile(path.join(packaged, `bin/napi-v6/linux/${process.arch}/libonnxruntime.so.1`), other);
  });
  afterAll(() => rm(folder, { recursive: true }));

  it("of another build of ONNX Runtime gets along with onnxruntime-node's in one process", async () => {
    const found = (await answer(BOTH, { CQIL_ORT_LIBRARY: other })) as { libraries: string[] };
    expect(found).toMatchObject({ bindings: ['native', 'node'], equal: true });
    expect(found.libraries).toContain(other);
    expect(found.libraries).toHaveLength(2);
    expect(await answer(BOTH)).toMatchObject({ bindings: ['native', 'node'], equal: true });
  });

  it('is not given up for another when the library that was named cannot be used', async () => {
    const missing = { CQIL_ORT_LIBRARY: path.join(folder, 'none.so') };
    await expect(answer(BOTH, missing)).rejects.toThrow('ORT_LIBRARY_UNUSABLE');
  });

  it('gives way to onnxruntime-node, and says so once, where koffi cannot be had', async () => {
    const loader = `data:text/javascript,${encodeURIComponent(`
      export const resolve = (name, context, next) =>
        name === 'koffi' ? Promise.reject(new Error('no koffi here')) : next(name, context);`)}`;
    const hook = `data:text/javascript,${encodeURIComponent(`
      import { register } from 'node:module';
      register(${JSON.stringify(loader)});`)}`;
    const found = await answer(FALLBACK, {}, ['--import', hook]);
    expect(found).toMatchObject({
      bindings: ['node', 'node'],
      asked: 'ORT_LIBRARY_UNUSABLE',
      warnings: [{ code: 'CQIL_BINDING', message: expect.stringContaining('no koffi here') }],
    });
    expect((found as { warnings: unknown[] }).warnings).toHaveLength(1);
  });

  it('holds on to all memory that a run reads or writes', async () => {
    expect(await answer(COLLECTED, {}, ['--expose-gc'])).toEqual({ wrong: 0 });
  });

  it('leaks nothing, disposed of or not, finished or aborted', async () => {
    const { loads, generations, aborted } = (await answer(MEMORY, {}, ['--expose-gc'])) as {
      loads: number[];
      generations: number[];
      aborted: number;
    };
    // A leak grows from one measurement to each next; heaps that settle do so once.
    const leastGrowth = (sizes: number[]) =>
      Math.min(...sizes.slice(1).map((size, i) => size / (sizes[i] as number)));
    expect(leastGrowth(loads)).toBeLessThan(1.03);
    expect(leastGrowth(generations)).toBeLessThan(1.03);
    expect(aborted).toBeGreaterThan(10);
  });
});
