import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { analyze } from '../../anatomy/index.js';
import { structuralFaults } from '../../onnx/check.js';
import { type Model, readModel, writeModel } from '../../onnx/index.js';
import { meetsGolden } from '../testing/meets-golden.js';
import { checkFused, type FuseResult, fuse } from './index.js';

const testdata = path.resolve(import.meta.dirname, '../../../../../testdata');
const families = process.env.CQIL_FAMILIES ?? path.join(testdata, 'families');

/** How often each pass applies, and what it says of what it leaves: `pass: expected / found`. */
interface Family {
  readonly file: string;
  readonly golden?: string;
  readonly applied: Readonly<Record<string, number>>;
  readonly refused: readonly string[];
  readonly nodes: number;
}

const family = (name: string, file = 'optimum/onnx/model.onnx') => path.join(families, name, file);
const optimum = (name: string, file = 'model.onnx') => path.join(testdata, 'optimum', name, 'onnx', file);
const golden = (name: string) => path.join(testdata, 'golden', `tiny-${name}.json`);

const SMALL_HEADS = (rotated: number) =>
  `rotary: a head size and a rotated part that are multiples of 16 / a head size of 8, ${rotated} of it rotated`;
const APART = 'pack-qkv: a product with a weight in floating point or in blocks / Reshape';
const FLOATS = (pass: string, found: string) =>
  `${pass}: a product with a weight in floating point or in blocks / ${found}`;
const NORM = (found: string) => `skip-norm: a norm over the last axis that reads the sum / read by ${found}`;

const FAMILIES: readonly Family[] = [
  {
    file: optimum('llama'),
    golden: golden('llama'),
    applied: {
      casts: 61,
      'rms-norm': 13,
      attention: 6,
      rotary: 6,
      'pack-qkv': 6,
      'pack-gate-up': 6,
      'skip-norm': 12,
    },
    refused: [],
    nodes: 97,
  },
  {
    file: optimum('qwen2'),
    golden: golden('qwen2'),
    applied: {
      casts: 61,
      'rms-norm': 13,
      attention: 6,
      rotary: 6,
      'pack-qkv': 6,
      'pack-gate-up': 6,
      'skip-norm': 12,
    },
    refused: [],
    nodes: 102,
  },
  {
    // One product for queries, keys and values; half of each head is rotated.
    file: optimum('phi3'),
    golden: golden('phi3'),
    applied: { casts: 61, 'rms-norm': 13, attention: 6, rotary: 6, 'skip-norm': 12 },
    refused: [],
    nodes: 168,
  },
  {
    file: optimum('gpt2'),
    golden: golden('gpt2'),
    applied: { casts: 13, products: 24, attention: 6, 'skip-norm': 12 },
    refused: [],
    nodes: 193,
  },
  {
    file: optimum('llama', 'model_fp16.onnx'),
    applied: {
      casts: 61,
      'rms-norm': 13,
      attention: 6,
      rotary: 6,
      'pack-qkv': 6,
      'pack-gate-up': 6,
      'skip-norm': 12,
    },
    refused: [],
    nodes: 122,
  },
  {
    file: optimum('llama', 'model_quantized.onnx'),
    applied: { casts: 61, 'rms-norm': 13, attention: 6, rotary: 6, 'skip-norm': 12 },
    refused: [FLOATS('pack-qkv', 'Mul'), FLOATS('pack-gate-up', 'Mul')],
    nodes: 255,
  },
  {
    // Position biases in the place of a mask of zeros.
    file: family('bloom'),
    golden: path.join(families, 'bloom/golden.json'),
    applied: { casts: 27, 'skip-norm': 8 },
    refused: ['attention: a causal mask of 0 and large negative numbers / 0.25 at position 3 and key 1'],
    nodes: 717,
  },
  {
    // Windows in all layers but one; norms on queries and keys.
    file: family('gemma3_text'),
    golden: path.join(families, 'gemma3_text/golden.json'),
    applied: { casts: 66, 'rms-norm': 25, attention: 4, 'pack-gate-up': 4, 'skip-norm': 8 },
    refused: [SMALL_HEADS(8), APART],
    nodes: 521,
  },
  {
    file: family('gpt_neox'),
    golden: path.join(families, 'gpt_neox/golden.json'),
    applied: { casts: 35, attention: 4, 'skip-norm': 4 },
    refused: [SMALL_HEADS(4), APART],
    nodes: 574,
  },
  {
    file: family('granite'),
    golden: path.join(families, 'granite/golden.json'),
    applied: { casts: 53, 'rms-norm': 9, attention: 4, 'pack-gate-up': 4, 'skip-norm': 8 },
    refused: [SMALL_HEADS(8), APART],
    nodes: 423,
  },
  {
    // Norms stand behind branches, so the sums are read as they are.
    file: family('olmo2'),
    golden: path.join(families, 'olmo2/golden.json'),
    applied: { casts: 75, 'rms-norm': 17, attention: 4, 'pack-gate-up': 4, 'skip-norm': 1 },
    refused: [SMALL_HEADS(8), APART, NORM('MatMul, Add'), NORM('Shape, Shape, MatMul, MatMul, MatMul, Add')],
    nodes: 418,
  },
  {
    file: family('olmo2', 'optimum/onnx/model_quantized.onnx'),
    applied: { casts: 75, 'rms-norm': 17, attention: 4, 'skip-norm': 1 },
    refused: [
      SMALL_HEADS(8),
      APART,
      FLOATS('pack-gate-up', 'Mul'),
      NORM('DynamicQuantizeLinear, Add'),
      NORM('Shape, Shape, DynamicQuantizeLinear, Add'),
    ],
    nodes: 518,
  },
  {
    // The FFN works on folded rows, and queries are scaled before they are split.
    file: family('opt'),
    golden: path.join(families, 'opt/golden.json'),
    applied: { casts: 18, attention: 4 },
    refused: [
      'products: a Reshape to rows before it / LayerNormalization',
      'products: a Reshape to rows before it / Relu',
      FLOATS('pack-qkv', 'Mul'),
      NORM('Shape, Shape, Shape, Shape, Reshape'),
      NORM('Reshape'),
    ],
    nodes: 224,
  },
  {
    file: family('opt', 'optimum/onnx/model_q4f16.onnx'),
    applied: { casts: 18, attention: 4 },
    refused: [
      'products: a Reshape to rows before it / LayerNormalization',
      'products: a Reshape to rows before it / Relu',
      FLOATS('pack-qkv', 'Mul'),
      NORM('Shape, Shape, Shape, Shape, Reshape'),
      NORM('Reshape'),
    ],
    nodes: 224,
  },
  {
    file: family('phi'),
    golden: path.join(families, 'phi/golden.json'),
    applied: { casts: 35, attention: 4, 'skip-norm': 4 },
    refused: [SMALL_HEADS(4), APART],
    nodes: 548,
  },
  {
    file: family('qwen3'),
    golden: path.join(families, 'qwen3/golden.json'),
    applied: { casts: 69, 'rms-norm': 17, attention: 4, 'pack-gate-up': 4, 'skip-norm': 8 },
    refused: [SMALL_HEADS(8), APART],
    nodes: 411,
  },
  {
    // Norms were fused by somebody else.
    file: family('gpt2', 'fused/model.onnx'),
    golden: path.join(families, 'gpt2/golden.json'),
    applied: { products: 4, attention: 4 },
    refused: [],
    nodes: 66,
  },
  {
    file: path.join(testdata, 'genai-fp32/llama/model.onnx'),
    applied: { 'pack-gate-up': 6 },
    refused: ['attention: attention in plain operators / a fused operator'],
    nodes: 83,
  },
];

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(path.join(os.tmpdir(), 'cqil-fuse-'));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

describe.each(FAMILIES.map((entry) => ({ name: path.relative(testdata, entry.file), ...entry })))(
  '$name',
  (entry) => {
    let source: Model;
    let result: FuseResult;
    beforeAll(async () => {
      source = await readModel(entry.file);
      result = await fuse(source);
    });

    it('says what was fused, and why the rest was not', () => {
      const applied = result.passes
        .filter((pass) => pass.applied > 0)
        .map(({ name, applied }) => [name, applied]);
      expect(Object.fromEntries(applied)).toEqual(entry.applied);
      const reasons = result.passes.flatMap(({ name, refused }) =>
        refused.map(({ expected, found }) => `${name}: ${expected} / ${found}`),
      );
      expect([...new Set(reasons)]).toEqual(entry.refused);
      expect(result.model.graph.nodes).toHaveLength(entry.nodes);
    });

    it('computes what the plain graph computes, in prefill, in decode and in a padded batch', async () => {
      const parity = await checkFused(source, result.model);
      expect(parity).toMatchObject({ ok: true });
      if (parity.tolerance <= 1e-3) expect(parity.logits).toBeLessThan(1e-4);
    });

    it('has the inputs and outputs of the plain graph, and is sound', () => {
      const interfaceOf = ({ graph }: Model) => [graph.inputs, graph.outputs];
      expect(interfaceOf(result.model)).toEqual(interfaceOf(source));
      expect(structuralFaults(result.model)).toEqual([]);
    });

    it('is understood as the plain graph is', () => {
      const kinds = (model: Model) => analyze(model).layers.map(({ kind, cache }) => ({ kind, cache }));
      expect(kinds(result.model)).toEqual(kinds(source));
    });

    it.runIf(entry.golden !== undefined)(
      'can be rewritten by plans, and then computes what PyTorch computes',
      async () => {
        const file = path.join(dir, path.basename(entry.golden as string), 'model.onnx');
        await writeModel(result.model, file);
        await meetsGolden(file, entry.golden as string, dir);
      },
    );
  },
);
