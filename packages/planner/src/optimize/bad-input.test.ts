import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readCosts } from '../costs/index.js';
import { readModel, Tensor, writeModel } from '../onnx/index.js';
import { locateModel } from '../source/index.js';
import { type OptimizeOptions, optimize } from './index.js';
import { modelFolder } from './testing/fixtures.js';
import { Bench } from './testing/runs.js';

let bench: Bench;
beforeAll(async () => {
  bench = await Bench.open();
});
afterAll(() => bench.close());

const quick = { recover: false, baselines: 'none' } as const;

/** Runs what must fail. @returns what is there afterwards: nothing of the output, at most work to go on with */
async function refused(more: Partial<OptimizeOptions>, error: object): Promise<string[]> {
  const out = bench.out();
  const before = await bench.left();
  await expect(bench.run(out, more)).rejects.toMatchObject(error);
  return (await bench.left()).filter((name) => !before.includes(name));
}

async function textFile(name: string, content: string | Uint8Array): Promise<string> {
  const file = path.join(bench.folder, name);
  await writeFile(file, content);
  return file;
}

describe('before any work is done', () => {
  it.each([
    ['too short', 'A few words.', 'TEXT_TOO_SHORT'],
    ['empty', '', 'TEXT_EMPTY'],
    ['white space', ' \n\n \t\n', 'TEXT_EMPTY'],
    ['not UTF-8', Uint8Array.of(0x48, 0xff, 0xfe, 0x20, 0xc3, 0x28), 'TEXT_NOT_UTF8'],
  ])('text that is %s is refused', async (name, content, code) => {
    const text = await textFile(`${name}.txt`, content);
    for (const more of [{ texts: [text] }, { texts: [bench.texts[0]!, text] }, { evaluationTexts: [text] }]) {
      expect(await refused(more, { name: 'UsageError', code })).toEqual([]);
    }
  });

  it('text that is not there is refused', async () => {
    expect(await refused({ texts: ['nowhere.txt'] }, { code: 'TEXT_NOT_FOUND' })).toEqual([]);
  });

  it.each([
    [{ maxSteps: 1 }, '2 steps at the fewest, 6 / 2 = 3.00 times as fast'],
    [{ targetSpeedup: 7 }, '2 steps at the fewest, 6 / 2 = 3.00 times as fast'],
  ])('%j is out of reach, and the nearest is told', async (target, found) => {
    expect(await refused({ target }, { code: 'TARGET_UNREACHABLE', found })).toEqual([]);
  });

  it('groups that are asked for decide what is in reach', async () => {
    const more = { target: { maxSteps: 2 }, groupSizes: [2] };
    expect(
      await refused(more, { code: 'TARGET_UNREACHABLE', found: expect.stringMatching(/^3 steps/) }),
    ).toEqual([]);
  });

  it.each([
    [{ target: { maxSteps: 0 } }, 'PLAN_PARAMETERS'],
    [{ target: { targetSpeedup: 0.5 } }, 'PLAN_PARAMETERS'],
    [{ target: { maxQualityLoss: -0.1 } }, 'PLAN_PARAMETERS'],
    [{ groupSizes: [1] }, 'COSTS_OPTIONS'],
    [{ bypasses: [-1] }, 'COSTS_OPTIONS'],
    [{ window: 1 }, 'TEXT_SETS_OPTIONS'],
    [{ texts: [] }, 'TEXT_SETS_OPTIONS'],
  ])('%j makes no sense', async (more, code) => {
    expect(await refused(more as Partial<OptimizeOptions>, { code })).toEqual([]);
  });

  it('an output folder that holds something is refused, and left as it is', async () => {
    const out = bench.out();
    await mkdir(out);
    await writeFile(path.join(out, 'diary.txt'), 'mine');
    for (const force of [false, true]) {
      await expect(bench.run(out, { force })).rejects.toMatchObject({ code: 'OUTPUT_NOT_EMPTY' });
    }
    expect(await readdir(out)).toEqual(['diary.txt']);
    await expect(bench.run(path.join(out, 'diary.txt'))).rejects.toMatchObject({ code: 'OUTPUT_NOT_EMPTY' });
    await rm(out, { recursive: true });
  });

  it('the source is not overwritten', async () => {
    const { root } = bench.source;
    const before = await readdir(root);
    for (const force of [false, true]) {
      await expect(bench.run(root, { force })).rejects.toMatchObject({ code: 'OUTPUT_IS_SOURCE' });
      await expect(bench.run(path.dirname(root), { force })).rejects.toMatchObject({
        code: 'OUTPUT_IS_SOURCE',
      });
    }
    expect(await readdir(root)).toEqual(before);
  });

  it('costs of another model are refused', async () => {
    const [a, b] = [bench.out(), bench.out()];
    await bench.run(a, quick);
    const costs = await readCosts(path.join(a, 'cqil.costs.json'));
    const other = { ...costs, model: { ...costs.model, sha256: 'of another' } };
    await expect(bench.run(b, { ...quick, costs: other })).rejects.toMatchObject({
      code: 'COSTS_OTHER_MODEL',
    });
    expect(await bench.left()).not.toContain(path.basename(b));
  });
});

it('weights that are no numbers are named by their layer', async () => {
  const folder = await modelFolder('genai-fp32/llama', path.join(bench.folder, 'nan'));
  const source = await locateModel(folder);
  const model = (await readModel(source.onnxFile)).clone();
  const [name, tensor] = [...model.graph.initializers].find(([key]) => key.includes('layers.4.mlp.down'))!;
  const values = new Float32Array(tensor.elementCount).fill(Number.NaN);
  model.graph.initializers.set(name, Tensor.create(name, tensor.dataType, tensor.dims, values));
  const broken = path.join(bench.folder, 'broken');
  await modelFolder('genai-fp32/llama', broken);
  await rm(path.join(broken, 'model.onnx'));
  await writeModel(model, path.join(broken, 'model.onnx'));
  const out = bench.out();
  await expect(optimize(await locateModel(broken), out, bench.options())).rejects.toMatchObject({
    name: 'MetricError',
    code: 'ACTIVATION_NOT_FINITE',
  });
  expect(await bench.left()).not.toContain(path.basename(out));
});

it('too little text to repair with is told, and without repair it is enough', async () => {
  const out = bench.out();
  const tokens = { calibration: 128, development: 128, evaluation: 64 };
  await expect(bench.run(out, { tokens })).rejects.toMatchObject({ code: 'RECOVERY_TEXT_TOO_SHORT' });
  expect(await bench.left()).not.toContain(path.basename(out));
  const report = await bench.run(bench.out(), { ...quick, tokens });
  expect(report.evaluation.rows.at(-1)?.id).toBe('ours');
});

it('replaces an earlier model by force, and not before the new one is complete', async () => {
  const out = bench.out();
  await bench.run(out, quick);
  const before = await readFile(path.join(out, 'cqil.plan.json'), 'utf8');
  const other = { ...quick, target: { maxSteps: 5 } };
  await expect(bench.run(out, other)).rejects.toMatchObject({ code: 'OUTPUT_NOT_EMPTY' });
  const controller = new AbortController();
  const stop = ({ phase }: { phase: string }) => {
    if (phase === 'measuring quality') controller.abort(new Error('enough'));
  };
  const stopped = { ...other, force: true, signal: controller.signal, onProgress: stop };
  await expect(bench.run(out, stopped)).rejects.toThrowError('enough');
  expect(await readFile(path.join(out, 'cqil.plan.json'), 'utf8')).toBe(before);
  await bench.run(out, { ...other, force: true });
  expect(await readFile(path.join(out, 'cqil.plan.json'), 'utf8')).not.toBe(before);
  expect((await bench.left()).filter((name) => name.startsWith(path.basename(out)))).toEqual([
    path.basename(out),
  ]);
});
