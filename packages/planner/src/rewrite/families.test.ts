import { existsSync, readdirSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { AnatomyError, parsePlan } from '@cqil/core';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { analyze } from '../anatomy/index.js';
import { readModel } from '../onnx/index.js';
import { checkParity } from '../verify/parity.js';
import { rewriteBranches } from './index.js';
import { meetsGolden } from './testing/meets-golden.js';

/** Made by tools/fixtures/make_families.py; the variable names another folder of its making. */
const root = process.env.CQIL_FAMILIES ?? path.resolve(import.meta.dirname, '../../../../testdata/families');

interface Fixture {
  readonly name: string;
  readonly model: string;
  readonly golden: string;
}

function folders(of: string): string[] {
  return readdirSync(of, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => entry.name)
    .sort();
}

/** Every graph in full precision: those have golden values. */
function fixtures(): Fixture[] {
  return folders(root)
    .filter((family) => family !== 'refused')
    .flatMap((family) =>
      [
        ['optimum', 'optimum/onnx/model.onnx', 'golden.json'],
        ['fused', 'fused/model.onnx', 'golden.json'],
        ['genai-fp32', 'genai-fp32/model.onnx', 'golden-genai.json'],
      ].map(([kind, model, golden]) => ({
        name: `${family} (${kind})`,
        model: path.join(root, family, model as string),
        golden: path.join(root, family, golden as string),
      })),
    )
    .filter(({ model }) => existsSync(model));
}

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(path.join(os.tmpdir(), 'cqil-families-'));
});
afterEach(() => rm(dir, { recursive: true, force: true }));

describe.each(fixtures())('$name, rewritten, computes what PyTorch computes', ({ model, golden }) => {
  it('for every plan, in prefill, in decode and in a padded batch', { timeout: 60_000 }, async () => {
    await meetsGolden(model, golden, dir);
  });
});

/** Graphs in other number formats. They have no golden values: their weights are not those of the PyTorch model. */
function quantised(): { name: string; model: string }[] {
  const files = ['fp16', 'quantized', 'q4', 'q4f16'].map((dtype) => `optimum/onnx/model_${dtype}.onnx`);
  return folders(root)
    .flatMap((family) =>
      [...files, 'genai-int4/model.onnx'].map((file) => ({
        name: `${family}/${file}`,
        model: path.join(root, family, file),
      })),
    )
    .filter(({ model }) => existsSync(model));
}

describe.each(quantised())('$name, rewritten, computes what its own parts give', ({ model }) => {
  it.each([
    {
      groups: [
        [0, 1],
        [2, 3],
      ],
      bypass: 1,
    },
    { groups: [[1, 2, 3]], bypass: 'full' },
  ])('for groups $groups with bypass $bypass', { timeout: 60_000 }, async ({ groups, bypass }) => {
    const source = await readModel(model);
    const anatomy = analyze(source);
    const plan = parsePlan({
      version: 1,
      layers: anatomy.layers.length,
      groups: groups.map((layers) => ({ layers, bypass })),
    });
    const rewritten = rewriteBranches(source, plan).model;
    const checks = await checkParity(source, anatomy, rewritten, plan, { short: true });
    expect(checks.filter(({ ok }) => !ok)).toEqual([]);
    expect(checks.some(({ status }) => status === 'passed')).toBe(true);
  });
});

/** What each must be refused with, and what its error must name. */
const REFUSALS: Readonly<Record<string, readonly [code: string, found: RegExp]>> = {
  bart_decoder: ['ANATOMY_STREAM_BROKEN', /LayerNormalization ".+" on the stream, before Add/],
  bart_encoder: ['ANATOMY_STREAM_BROKEN', /LayerNormalization ".+" on the stream, before Add/],
  bert: ['ANATOMY_STREAM_BROKEN', /LayerNormalization ".+" on the stream, before Add/],
  bert_features: ['ANATOMY_STREAM_BROKEN', /LayerNormalization ".+" on the stream, before Add/],
  merged: ['ANATOMY_MERGED', /If "optimum::if"/],
  no_cache: ['ANATOMY_NO_CACHE', /none/],
  opt_350m: ['ANATOMY_STREAM_BROKEN', /LayerNormalization ".+" on the stream, before Add/],
  t5_decoder: ['ANATOMY_CROSS_ATTENTION', /Add ".+" depends on input ".+encoder/],
  t5_merged: ['ANATOMY_MERGED', /If "optimum::if"/],
  vit: ['ANATOMY_NO_TOKENS', /pixel_values/],
  whisper_decoder: ['ANATOMY_CROSS_ATTENTION', /Add ".+" depends on input ".+encoder/],
};

describe.each(folders(path.join(root, 'refused')))('%s', (name) => {
  it('is refused, and the error says where, what was expected and what was found', async () => {
    const source = await readModel(path.join(root, 'refused', name, 'model.onnx'));
    const [code, found] = REFUSALS[name] as readonly [string, RegExp];
    expect(refusalOf(() => analyze(source))).toMatchObject({
      code,
      expected: expect.stringMatching(/./),
      found: expect.stringMatching(found),
      hint: expect.stringMatching(/./),
    });
  });
});

function refusalOf(run: () => unknown): AnatomyError {
  try {
    run();
  } catch (error) {
    if (error instanceof AnatomyError) return error;
    throw error;
  }
  throw new Error('It was not refused.');
}
