import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DecoderSession } from '@cqil/runtime-gpu';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { analyze } from '../anatomy/index.js';
import { linearMaps, readMatrix } from '../linear/index.js';
import { intAttribute, readModel, setAttribute, writeModel } from '../onnx/index.js';
import { importGguf } from './import.js';
import type { ImportDtype } from './storage.js';
import { TINY, tinyPairs, tinyTensors } from './testing/tiny-llama.js';
import { type GgufSpec, type Pairs, type TensorSpec, writeGguf } from './testing/write-gguf.js';
import { QUANT_TYPES, type QuantType } from './types.js';

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'cqil-gguf-'));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

let counter = 0;
const fresh = (name: string) => join(dir, `${counter++}-${name}`);

async function saved(spec: GgufSpec): Promise<string> {
  const file = fresh('model.gguf');
  await writeFile(file, writeGguf(spec));
  return file;
}

/** A copy whose 4-bit products round no input. */
async function withFloatInputs(onnxFile: string): Promise<string> {
  const model = await readModel(onnxFile);
  for (const node of model.graph.nodes) {
    if (intAttribute(node, 'bits') === 4) setAttribute(node, 'accuracy_level', { int: 1 });
  }
  const copy = fresh('float-inputs.onnx');
  await writeModel(model, copy);
  return copy;
}

const IDS = [72, 101, 108, 108, 111, 44, 32, 257, 259, 12, 200, 300];

async function logits(onnxFile: string, inputIds: number[][] = [IDS]): Promise<Float32Array[][]> {
  const decoder = await DecoderSession.open(onnxFile);
  try {
    const { logits } = await decoder.forward({ inputIds, returnCache: false });
    const [, positions, vocabulary] = logits.dims;
    return inputIds.map((_, row) =>
      Array.from({ length: positions }, (_, i) => {
        const at = (row * positions + i) * vocabulary;
        return logits.data.slice(at, at + vocabulary);
      }),
    );
  } finally {
    await decoder.dispose();
  }
}

async function imported(tensors: readonly TensorSpec[], dtype: ImportDtype, pairs: Pairs = tinyPairs()) {
  return importGguf(await saved({ pairs, tensors }), fresh('folder'), { dtype });
}

const largestDifference = (a: Float32Array[], b: Float32Array[]) =>
  Math.max(...a.map((row, i) => Math.max(...row.map((value, k) => Math.abs(value - b[i]![k]!)))));
/** Of half the positions: a few of this random model make any rounding a hundred times as large. */
const usualDifference = (a: Float32Array[], b: Float32Array[]) => {
  const apart = a.map((row, i) => largestDifference([row], [b[i]!])).sort((x, y) => x - y);
  return apart[Math.floor(apart.length / 2)]!;
};
const spread = (rows: Float32Array[]) => Math.max(...rows.map((row) => Math.max(...row) - Math.min(...row)));

/** Rounding of inputs to 8 bits, relative to the spread of the logits; only 8-bit products do it. */
const ROUNDED = 0.03;

describe('importGguf', () => {
  it.each(QUANT_TYPES)('%s in blocks computes what the dequantised numbers compute', async (type) => {
    const tensors = tinyTensors({ type });
    const exact = await imported(tensors, 'fp32');
    const source = await imported(tensors, 'source');
    const half = await imported(tensors, 'fp16');
    const [expected] = await logits(exact.onnxFile);
    const size = spread(expected!);
    expect(size).toBeGreaterThan(0.5);
    expect(expected!.flatMap((row) => [...row]).every(Number.isFinite)).toBe(true);

    const difference = largestDifference((await logits(source.onnxFile))[0]!, expected!);
    expect(difference / size).toBeLessThan(ROUNDED);
    expect(largestDifference((await logits(half.onnxFile))[0]!, expected!) / size).toBeLessThan(0.02);
  });

  it('rounds nothing in 4-bit blocks but inputs and the last digit of offsets', async () => {
    for (const type of ['Q4_0', 'Q4_1', 'Q4_K'] as const) {
      const tensors = tinyTensors({ type, embedding: 'F32', output: 'F32' });
      const [a] = await logits((await imported(tensors, 'fp32')).onnxFile);
      const source = (await imported(tensors, 'source')).onnxFile;
      const [b] = await logits(await withFloatInputs(source));
      expect(usualDifference(a!, b!)).toBeLessThan(type === 'Q4_0' ? 1e-5 : 1e-3);
      const [c] = await logits(source);
      expect(usualDifference(a!, c!) / spread(a!)).toBeLessThan(ROUNDED);
    }
  });

  it.each([
    ['Q4_0', 1e-6],
    ['Q4_1', 1e-3],
    ['Q4_K', 1e-3],
    ['Q5_1', 1e-3],
    ['Q5_K', 1e-3],
  ] as const)('has the matrices of %s within a share of %d', async (type, share) => {
    const tensors = tinyTensors({ type, embedding: 'F32', output: 'F32' });
    const read = async (file: string) => {
      const model = await readModel(file);
      const { maps } = linearMaps(model, analyze(model));
      return Promise.all(maps.map(async (map) => (await readMatrix(model, map)).weight));
    };
    const expected = await read((await imported(tensors, 'fp32')).onnxFile);
    const found = await read((await imported(tensors, 'source')).onnxFile);
    expect(found).toHaveLength(expected.length);
    for (const [i, matrix] of expected.entries()) {
      let [error, size] = [0, 0];
      for (const [k, value] of matrix.entries()) {
        error += (found[i]![k]! - value) ** 2;
        size += value ** 2;
      }
      expect(Math.sqrt(error / size)).toBeLessThan(share);
    }
  });

  it('mixes types in one model, as Q4_K_M files do', async () => {
    const type = (name: string): QuantType =>
      name.includes('attn_v') ? 'Q6_K' : name.includes('ffn_down') ? 'F16' : 'Q4_K';
    const tensors = tinyTensors({ type, embedding: 'Q4_K', output: 'Q6_K', biases: true });
    const [a] = await logits((await imported(tensors, 'fp32')).onnxFile);
    const source = await imported(tensors, 'source');
    const [b] = await logits(source.onnxFile);
    expect(largestDifference(a!, b!) / spread(a!)).toBeLessThan(ROUNDED);
    expect(source.dtype).toBe('q4');
  });

  it.each([
    ['fp32', 'native', 'right'],
    ['fp16', 'native', 'right'],
    ['source', 'native', 'right'],
    ['fp32', 'node', 'left'],
    ['fp16', 'node', 'left'],
    ['source', 'node', 'left'],
  ] as const)(
    '%s, %s: a batch padded on the %s equals single sequences, prefill and decode',
    async (dtype, binding, _side) => {
      const { onnxFile } = await imported(tinyTensors({ type: 'Q4_1' }), dtype);
      const rows = [IDS, IDS.slice(3, 9)];
      const decoder = await DecoderSession.open(onnxFile, { binding });
      try {
        const steps = async (inputIds: number[][]) => {
          const out: number[][][] = [];
          let { logits, cache } = await decoder.forward({ inputIds, keep: 'last' });
          for (let step = 0; step < 3; step++) {
            out.push(
              inputIds.map((_, i) => [...logits.data.slice(i * TINY.vocabulary, (i + 1) * TINY.vocabulary)]),
            );
            ({ logits, cache } = await decoder.forward({ inputIds: inputIds.map(() => [65 + step]), cache }));
          }
          return out;
        };
        const together = await steps(rows);
        for (const [i, row] of rows.entries()) {
          const alone = await steps([row]);
          for (const [step, values] of alone.entries()) {
            const size = Math.max(...values[0]!) - Math.min(...values[0]!);
            const difference = Math.max(
              ...values[0]!.map((value, k) => Math.abs(value - together[step]![i]![k]!)),
            );
            expect(difference / size).toBeLessThan(dtype === 'fp32' ? 1e-4 : ROUNDED);
          }
        }
      } finally {
        await decoder.dispose();
      }
    },
  );

  it('divides the rotary frequencies by rope_freqs and by the linear factor', async () => {
    const half = TINY.hidden / TINY.heads / 2;
    const plain = tinyTensors();
    const scaled = tinyPairs(TINY, {
      'llama.rope.scaling.type': { string: 'linear' },
      'llama.rope.scaling.factor': { f32: 4 },
    });
    const byFactors = tinyTensors({ ropeFactors: Array.from({ length: half }, () => 4) });
    const [a] = await logits((await imported(plain, 'fp32', scaled)).onnxFile);
    const [b] = await logits((await imported(byFactors, 'fp32')).onnxFile);
    const [c] = await logits((await imported(plain, 'fp32')).onnxFile);
    expect(largestDifference(a!, b!)).toBeLessThan(1e-4);
    expect(largestDifference(a!, c!)).toBeGreaterThan(1e-3);
  });

  it('rotates a part of each head where the model says so', async () => {
    const headDim = TINY.hidden / TINY.heads;
    const rotated = headDim / 2;
    const [part] = await logits(
      (
        await imported(
          tinyTensors(),
          'fp32',
          tinyPairs(TINY, { 'llama.rope.dimension_count': { u32: rotated } }),
        )
      ).onnxFile,
    );
    // The same by other means: whole heads, with factors that set the part's frequencies and stop the rest.
    const ropeFactors = Array.from({ length: headDim / 2 }, (_, i) =>
      2 * i < rotated ? 10000 ** ((2 * i) / rotated - (2 * i) / headDim) : 1e30,
    );
    const [whole] = await logits((await imported(tinyTensors({ ropeFactors }), 'fp32')).onnxFile);
    expect(largestDifference(part!, whole!)).toBeLessThan(1e-3);
  });

  it('writes a whole folder, the same bytes each time, with the dtype for Transformers.js', async () => {
    const file = await saved({
      pairs: tinyPairs(),
      tensors: tinyTensors({ type: 'Q4_1', embedding: 'Q8_0' }),
    });
    const hashes: string[] = [];
    for (const out of [fresh('a'), fresh('b')]) {
      const result = await importGguf(file, out);
      expect(result).toMatchObject({
        dtype: 'q4',
        folder: out,
        onnxFile: join(out, 'onnx', 'model_q4.onnx'),
      });
      const names = (await readdir(out, { recursive: true })).sort();
      expect(names).toEqual([
        'config.json',
        'generation_config.json',
        'onnx',
        join('onnx', 'model_q4.onnx'),
        'tokenizer.json',
        'tokenizer_config.json',
      ]);
      const hash = createHash('sha256');
      for (const name of names.filter((name) => name !== 'onnx'))
        hash.update(await readFile(join(out, name)));
      hashes.push(hash.digest('hex'));
      const config = JSON.parse(await readFile(join(out, 'config.json'), 'utf8'));
      expect(config).toMatchObject({
        model_type: 'llama',
        num_hidden_layers: 2,
        rms_norm_eps: 1e-5,
        eos_token_id: 319,
        'transformers.js_config': { dtype: 'q4' },
        cqil_import: { source_types: { F32: 5, Q4_1: 14, Q8_0: 1 } },
      });
    }
    expect(hashes[0]).toBe(hashes[1]);
  });

  it('leaves a folder with other contents alone, and replaces its own', async () => {
    const file = await saved({ pairs: tinyPairs(), tensors: tinyTensors() });
    const out = fresh('occupied');
    await mkdir(out);
    await writeFile(join(out, 'notes.txt'), 'mine');
    await expect(importGguf(file, out)).rejects.toMatchObject({ code: 'OUTPUT_NOT_EMPTY' });
    expect(await readdir(out)).toEqual(['notes.txt']);
    await importGguf(file, out, { force: true });
    await importGguf(file, out);
    expect(await readdir(out)).toContain('notes.txt');
  });

  it('stops when asked to, and leaves nothing behind', async () => {
    const file = await saved({ pairs: tinyPairs(), tensors: tinyTensors() });
    const parent = fresh('parent');
    const controller = new AbortController();
    const run = importGguf(file, join(parent, 'model'), {
      signal: controller.signal,
      onProgress: ({ phase }) => {
        if (phase !== 'reading metadata') controller.abort();
      },
    });
    await expect(run).rejects.toThrow(/abort/i);
    expect(await readdir(parent)).toEqual([]);
  });

  const refusals: [string, string, Pairs, (tensors: TensorSpec[]) => TensorSpec[]][] = [
    ['another architecture', 'GGUF_ARCHITECTURE', { 'general.architecture': { string: 'qwen2' } }, (t) => t],
    ['a mixture of experts', 'GGUF_MIXTURE_OF_EXPERTS', { 'llama.expert_count': { u32: 8 } }, (t) => t],
    [
      'expert tensors without a count',
      'GGUF_MIXTURE_OF_EXPERTS',
      {},
      (t) => [...t, { ...t[7]!, name: 'blk.0.ffn_gate_exps.weight' }],
    ],
    ['yarn scaling', 'GGUF_ROPE_SCALING', { 'llama.rope.scaling.type': { string: 'yarn' } }, (t) => t],
    [
      'a missing tensor',
      'GGUF_TENSOR_MISSING',
      {},
      (t) => t.filter(({ name }) => name !== 'blk.1.ffn_up.weight'),
    ],
    [
      'an unknown tensor',
      'GGUF_UNSUPPORTED_TENSOR',
      {},
      (t) => [...t, { ...t[1]!, name: 'blk.0.attn_q_norm.weight' }],
    ],
    ['a wrong shape', 'GGUF_TENSOR_DIMS', { 'llama.feed_forward_length': { u32: 256 } }, (t) => t],
    [
      'a bias that is not on all of q, k and v',
      'GGUF_TENSOR_MISSING',
      {},
      (t) => [...t, { ...t[1]!, name: 'blk.0.attn_q.bias' }],
    ],
    ['heads that do not divide', 'GGUF_METADATA', { 'llama.attention.head_count_kv': { u32: 3 } }, (t) => t],
    [
      'keys and values of different length',
      'GGUF_METADATA',
      { 'llama.attention.value_length': { u32: 32 } },
      (t) => t,
    ],
    [
      'an unknown pre-tokenizer',
      'GGUF_PRE_TOKENIZER',
      { 'tokenizer.ggml.pre': { string: 'martian' } },
      (t) => t,
    ],
    [
      'an unknown kind of tokenizer',
      'GGUF_TOKENIZER',
      { 'tokenizer.ggml.model': { string: 'rwkv' } },
      (t) => t,
    ],
    [
      'a token beyond the vocabulary',
      'GGUF_METADATA',
      { 'tokenizer.ggml.eos_token_id': { u32: 99999 } },
      (t) => t,
    ],
    [
      'a string where a number should be',
      'GGUF_METADATA',
      { 'llama.block_count': { string: 'two' } },
      (t) => t,
    ],
    ['a million layers', 'GGUF_METADATA', { 'llama.block_count': { u32: 1000000 } }, (t) => t],
  ];

  it.each(refusals)('refuses %s with %s', async (_, code, pairs, change) => {
    const file = await saved({ pairs: tinyPairs(TINY, pairs), tensors: change(tinyTensors()) });
    const out = fresh('refused');
    await expect(importGguf(file, out)).rejects.toMatchObject({ code, name: 'ModelFormatError' });
    await expect(readdir(out)).rejects.toThrow();
  });

  it('refuses a type that it cannot dequantise by its name', async () => {
    const tensors = tinyTensors().map((tensor) =>
      tensor.name === 'blk.0.attn_q.weight'
        ? { ...tensor, type: 10, bytes: new Uint8Array((256 * 256 * 84) / 256) }
        : tensor,
    );
    const error = imported(tensors, 'fp32');
    await expect(error).rejects.toMatchObject({ code: 'GGUF_UNSUPPORTED_TYPE', found: 'Q2_K' });
  });
});
