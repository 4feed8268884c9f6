import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { DecoderSession } from '@cqil/runtime-gpu';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { evaluateKinds, loadTokenizer, openTextSets } from '../../evaluate/index.js';
import { logitsOf, testdata } from '../../linear/testing/fixtures.js';
import { readModel } from '../../onnx/index.js';
import { modelFolder, textFiles } from '../../optimize/testing/fixtures.js';
import { locateModel } from '../../source/index.js';
import { openVariant } from '../../variant/index.js';
import { QUANTISE_FILE, quantiseModelQdq } from '../index.js';

const session = { threads: 1 };

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(path.join(os.tmpdir(), 'cqil-qdq-'));
});
afterEach(() => rm(dir, { recursive: true, force: true }));

describe('quantiseModelQdq', () => {
  it('writes a folder that is found as q8, and says what it cost on text that nothing was fixed by', async () => {
    const folder = await modelFolder('optimum/llama', path.join(dir, 'source'));
    const source = await locateModel(folder, { dtype: 'fp32' });
    const texts = await textFiles(path.join(dir, 'text'));
    const tokens = { calibration: 256, evaluation: 128 };
    const out = path.join(dir, 'out');
    const result = await quantiseModelQdq(source, out, { texts, tokens, window: 32, session });
    expect(result.onnxFile).toBe(path.join(out, 'onnx/model_quantized.onnx'));
    expect(await readdir(path.join(out, 'onnx'))).toEqual(['model_quantized.onnx']);
    expect(result.bytes.after).toBeLessThan(result.bytes.before / 2);
    const found = await locateModel(out);
    expect(found).toMatchObject({ dtype: 'q8', onnxFile: result.onnxFile });
    expect(found.sideFiles).toContain('tokenizer.json');
    const { root: _, onnxFile: __, ...said } = result;
    expect(JSON.parse(await readFile(path.join(out, QUANTISE_FILE), 'utf8'))).toEqual(said);
    expect(result).toMatchObject({ version: 1, format: 'qdq', residual: { bits: 16, sums: 12 }, left: [] });
    expect(result.texts?.calibration.tokens).toBe(256);
    await using before = new DecoderSession(await openVariant(await readModel(source.onnxFile), session));
    await using after = new DecoderSession(await openVariant(await readModel(found.onnxFile), session));
    const sets = await openTextSets(await loadTokenizer(folder), {
      texts,
      tokens: { ...tokens, development: 1 },
      window: 32,
    });
    expect(await evaluateKinds(before, after, await sets.openEvaluation())).toEqual(result.quality);
    for (const { excess, kl } of result.quality?.kinds ?? []) {
      expect(kl).toBeGreaterThan(0);
      expect(Math.abs(excess)).toBeLessThan(0.1);
    }
  });

  it('keeps the names of layouts that have none by dtype, and replaces what it wrote by force', async () => {
    const folder = await modelFolder('genai-fp32/llama', path.join(dir, 'source'));
    const source = await locateModel(folder);
    const out = path.join(dir, 'out');
    const options = { tokens: { calibration: 64, evaluation: 64 }, window: 16, session };
    const texts = await textFiles(path.join(dir, 'text'));
    const { onnxFile } = await quantiseModelQdq(source, out, { ...options, texts });
    expect(path.basename(onnxFile)).toBe('model.onnx');
    expect((await locateModel(out)).layout).toBe('genai');
    expect(await logitsOf(await readModel(onnxFile))).toHaveLength(
      (await logitsOf(await readModel(path.join(testdata('genai-fp32/llama'), 'model.onnx')))).length,
    );
    await expect(quantiseModelQdq(source, out, { ...options, texts })).rejects.toMatchObject({
      code: 'OUTPUT_NOT_EMPTY',
    });
    const again = await quantiseModelQdq(source, out, { ...options, texts, residualBits: 8, force: true });
    expect(again.residual.bits).toBe(8);
  });

  it('refuses before it opens any text', async () => {
    const folder = await modelFolder('optimum/llama', path.join(dir, 'source'));
    const texts = [path.join(dir, 'absent.txt')];
    const run = async (
      dtype: 'fp32' | 'fp16',
      options: { readonly residualBits?: never; texts?: string[] },
    ) =>
      quantiseModelQdq(await locateModel(folder, { dtype }), path.join(dir, 'out'), { session, ...options });
    await expect(run('fp32', { texts, residualBits: 4 as never })).rejects.toMatchObject({
      code: 'QUANTISE_OPTIONS',
    });
    await expect(run('fp16', { texts })).rejects.toMatchObject({ code: 'QDQ_HALF' });
    // With nothing to refuse it is the text that is missed.
    await expect(run('fp32', { texts })).rejects.toMatchObject({ code: expect.stringMatching(/^(?!Q)/) });
    // Nor does the model write any, which would be told.
    const told: string[] = [];
    const source = await locateModel(folder, { dtype: 'fp16' });
    const onProgress = ({ phase }: { readonly phase: string }) => void told.push(phase);
    const refused = quantiseModelQdq(source, path.join(dir, 'out'), { session, onProgress });
    await expect(refused).rejects.toMatchObject({ code: 'QDQ_HALF' });
    expect(told).toEqual([]);
  });
});
