import { cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { DecoderSession } from '@cqil/runtime-gpu';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { evaluateKinds, loadTokenizer, openTextSets } from '../evaluate/index.js';
import { logitsOf, testdata } from '../linear/testing/fixtures.js';
import { type Model, readModel, writeModel } from '../onnx/index.js';
import { modelFolder, textFiles } from '../optimize/testing/fixtures.js';
import { locateModel, type ModelSource } from '../source/index.js';
import { openVariant } from '../variant/index.js';
import { nameDataFile, placeWeights } from './data-files.js';
import { QUANTISE_FILE, quantise, quantiseModel } from './index.js';

const session = { threads: 1 };

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(path.join(os.tmpdir(), 'cqil-quantise-'));
});
afterEach(() => rm(dir, { recursive: true, force: true }));

const llama = (dtype = 'fp32') => locateModel(testdata('optimum/llama'), { dtype });

async function configOf(folder: string): Promise<Record<string, unknown>> {
  return JSON.parse(await readFile(path.join(folder, 'config.json'), 'utf8'));
}

/** A copy of the fixture with its weights in a file of their own, as large models have them. */
async function withDataFile(folder: string): Promise<Model> {
  await cp(testdata('optimum/llama'), folder, { recursive: true });
  await rm(path.join(folder, 'onnx'), { recursive: true });
  await mkdir(path.join(folder, 'onnx'));
  const file = path.join(folder, 'onnx/model.onnx');
  await writeModel(await readModel((await llama()).onnxFile), file, {
    external: { location: 'model.onnx_data' },
  });
  const named = { use_external_data_format: { 'model.onnx': 1 } };
  const config = { ...(await configOf(folder)), 'transformers.js_config': named };
  await writeFile(path.join(folder, 'config.json'), JSON.stringify(config));
  return readModel(file);
}

describe('quantiseModel', () => {
  it.each([
    ['fp32', 4, 'q4', 'model_q4.onnx'],
    ['fp16', 4, 'q4f16', 'model_q4f16.onnx'],
    ['fp32', 8, 'q8', 'model_quantized.onnx'],
  ] as const)('%s in %i bits is found as %s', async (dtype, bits, expected, file) => {
    const out = path.join(dir, 'out');
    const source = await llama(dtype);
    const result = await quantiseModel(source, out, { bits, method: 'rtn', session });
    expect(result).toMatchObject({ root: out, onnxFile: path.join(out, 'onnx', file), method: 'rtn' });
    expect(result.bytes.after).toBeLessThan(result.bytes.before);
    const found = await locateModel(out);
    expect(found).toMatchObject({ dtype: expected, onnxFile: result.onnxFile });
    expect((await configOf(out))['transformers.js_config']).toMatchObject({ dtype: expected });
    expect(await logitsOf(await readModel(found.onnxFile))).toHaveLength(
      (await logitsOf(await readModel(source.onnxFile))).length,
    );
    const record = JSON.parse(await readFile(path.join(out, QUANTISE_FILE), 'utf8'));
    expect(record).toMatchObject({ version: 1, bits, method: 'rtn', left: [] });
    expect(record.matrices).toEqual(result.matrices);
    expect(await readdir(dir)).toEqual(['out']);
  });

  it('takes the weights into the graph where they are few, and says so', async () => {
    const folder = path.join(dir, 'source');
    await withDataFile(folder);
    const out = path.join(dir, 'out');
    await quantiseModel(await locateModel(folder), out, { method: 'rtn', session });
    expect(await readdir(path.join(out, 'onnx'))).toEqual(['model_q4.onnx']);
    expect((await configOf(out))['transformers.js_config']).toEqual({ dtype: 'q4' });
    const inline = path.join(dir, 'inline');
    await quantiseModel(await llama(), inline, { method: 'rtn', session });
    expect(await logitsOf(await readModel(path.join(out, 'onnx/model_q4.onnx')))).toEqual(
      await logitsOf(await readModel(path.join(inline, 'onnx/model_q4.onnx'))),
    );
  });

  it('puts many weights into a data file of the name that is looked for', async () => {
    const folder = path.join(dir, 'source');
    const source = await withDataFile(folder);
    const { model } = await quantise(source, { session });
    const target = { onnxRelative: 'onnx/model_q4.onnx' };
    const truth = await logitsOf(model);
    expect(placeWeights(model, target)).toBe(false);
    expect(placeWeights(model, target, 1000)).toBe(true);
    const file = path.join(dir, target.onnxRelative);
    expect((await writeModel(model, file)).map((name) => path.basename(name)).sort()).toEqual([
      'model_q4.onnx',
      'model_q4.onnx_data',
    ]);
    expect(await logitsOf(await readModel(file))).toEqual(truth);
    await nameDataFile(folder, true);
    expect((await configOf(folder))['transformers.js_config']).toEqual({ use_external_data_format: true });
  });

  it('keeps the names of layouts that have none by dtype', async () => {
    const out = path.join(dir, 'out');
    const source = await locateModel(testdata('genai-fp32/llama'));
    const { onnxFile } = await quantiseModel(source, out, { method: 'rtn', session });
    expect(path.basename(onnxFile)).toBe('model.onnx');
    expect(await readdir(out)).toContain('model.onnx.data');
    expect((await locateModel(out)).layout).toBe('genai');
    expect(await logitsOf(await readModel(onnxFile))).toBeDefined();
  });

  it('replaces only what it wrote itself, by force', async () => {
    const out = path.join(dir, 'out');
    const source = await llama();
    await quantiseModel(source, out, { method: 'rtn', session });
    const again = (force: boolean) => quantiseModel(source, out, { method: 'rtn', bits: 8, force, session });
    await expect(again(false)).rejects.toMatchObject({ code: 'OUTPUT_NOT_EMPTY' });
    expect(path.basename((await again(true)).onnxFile)).toBe('model_quantized.onnx');
    expect(await readdir(path.join(out, 'onnx'))).toEqual(['model_quantized.onnx']);
    await rm(path.join(out, QUANTISE_FILE));
    await expect(again(true)).rejects.toMatchObject({ code: 'OUTPUT_NOT_EMPTY' });
    const inside: ModelSource = { ...source, onnxFile: path.join(dir, 'x/model.onnx') };
    await expect(quantiseModel(inside, path.join(dir, 'x'), { session })).rejects.toMatchObject({
      code: 'OUTPUT_IS_SOURCE',
    });
  });

  it('leaves nothing behind when it is stopped', async () => {
    const controller = new AbortController();
    const run = quantiseModel(await llama(), path.join(dir, 'out'), {
      method: 'rtn',
      session,
      signal: controller.signal,
      onProgress: ({ done }) => done === 5 && controller.abort(new Error('enough')),
    });
    await expect(run).rejects.toThrow('enough');
    expect(await readdir(dir)).toEqual([]);
  });

  it('calibrates, chooses and measures on parts of the text that have nothing in common', async () => {
    const folder = await modelFolder('optimum/llama', path.join(dir, 'source'));
    const source = await locateModel(folder, { dtype: 'fp32' });
    const options = {
      texts: await textFiles(path.join(dir, 'text')),
      tokens: { calibration: 256, evaluation: 128 },
      window: 32,
      finerShare: 0.2,
      session,
    };
    const result = await quantiseModel(source, path.join(dir, 'out'), options);
    expect(result.method).toBe('gptq');
    expect(result.quality?.kinds.map(({ kind }) => kind)).toEqual(['prose', 'code']);
    for (const { perplexity, kl, excess } of result.quality?.kinds ?? []) {
      expect(perplexity).toBeGreaterThan(1);
      expect(kl).toBeGreaterThan(0);
      expect(Math.abs(excess)).toBeLessThan(0.2);
    }
    const { calibration, development, evaluation } = result.texts!;
    expect([calibration.tokens, development.tokens, evaluation.tokens]).toEqual([256, 64, 128]);
    expect(new Set([calibration.sha256, development.sha256, evaluation.sha256]).size).toBe(3);
    expect(new Set(result.matrices.map(({ bits }) => bits))).toEqual(new Set([4, 8]));
    const found = await locateModel(path.join(dir, 'out'));
    expect(found.sideFiles).toContain('tokenizer.json');
    // What was measured is what was written.
    await using before = new DecoderSession(await openVariant(await readModel(source.onnxFile), session));
    await using after = new DecoderSession(await openVariant(await readModel(found.onnxFile), session));
    const sets = await openTextSets(await loadTokenizer(folder), {
      texts: options.texts,
      tokens: { calibration: 256, development: 1, evaluation: 128 },
      window: 32,
    });
    expect(await evaluateKinds(before, after, await sets.openEvaluation())).toEqual(result.quality);
  });

  it('wants a tokenizer where there is text', async () => {
    const run = quantiseModel(await llama(), path.join(dir, 'out'), { texts: ['a.txt'], session });
    await expect(run).rejects.toMatchObject({ code: 'TOKENIZER_NOT_FOUND' });
  });
});
