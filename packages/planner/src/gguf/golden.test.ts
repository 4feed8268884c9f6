import { readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { DecoderSession } from '@cqil/runtime-gpu';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Model, readModel } from '../onnx/index.js';
import { importGguf } from './import.js';
import { bytesOf, tinyPairs } from './testing/tiny-llama.js';
import { type TensorSpec, writeGguf } from './testing/write-gguf.js';
import { halfSplitOrder } from './weights.js';

const testdata = fileURLToPath(new URL('../../../../testdata', import.meta.url));
const shape = { layers: 6, hidden: 64, ffn: 160, heads: 4, kvHeads: 2, vocabulary: 512 };
const headDim = shape.hidden / shape.heads;

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'cqil-gguf-golden-'));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

async function values(model: Model, name: string): Promise<Float32Array> {
  const bytes = await model.graph.initializers.get(name)!.bytes();
  return new Float32Array(bytes.slice().buffer);
}

/** Columns `from` to `to` of a `[inputs, outputs]` matrix as rows. */
function rows(matrix: Float32Array, inputs: number, from: number, to: number): Float32Array[] {
  const outputs = matrix.length / inputs;
  return Array.from({ length: to - from }, (_, r) =>
    Float32Array.from({ length: inputs }, (_, k) => matrix[k * outputs + from + r]!),
  );
}

/** A GGUF tensor of rows, in the order that GGUF has q and k in. */
function tensor(name: string, matrix: readonly Float32Array[], heads?: number): TensorSpec {
  const ordered = [...matrix];
  if (heads !== undefined) {
    for (const [to, from] of halfSplitOrder(heads, headDim, headDim).entries()) ordered[from] = matrix[to]!;
  }
  const flat = new Float32Array(ordered.flatMap((row) => [...row]));
  return { name, dims: [matrix[0]!.length, matrix.length], type: 'F32', bytes: bytesOf(flat) };
}

async function ggufOfFixture(): Promise<Uint8Array> {
  const model = await readModel(join(testdata, 'genai-fp32/llama/model.onnx'));
  const { hidden, ffn, kvHeads, heads, layers } = shape;
  const kv = kvHeads * headDim;
  const vector = async (name: string, source: string): Promise<TensorSpec> => ({
    name,
    dims: [hidden],
    type: 'F32',
    bytes: bytesOf(await values(model, source)),
  });
  const table = await values(model, 'model.embed_tokens.weight');
  const tensors = [
    {
      name: 'token_embd.weight',
      dims: [hidden, shape.vocabulary],
      type: 'F32' as const,
      bytes: bytesOf(table),
    },
    await vector('output_norm.weight', `model.layers.${layers}.final_norm_layernorm.weight`),
  ];
  for (let i = 0; i < layers; i++) {
    const of = (part: string) => values(model, `model.layers.${i}.${part}.MatMul.weight`);
    const qkv = await of('attn.qkv_proj');
    tensors.push(
      await vector(`blk.${i}.attn_norm.weight`, `model.layers.${i}.input_layernorm.weight`),
      await vector(`blk.${i}.ffn_norm.weight`, `model.layers.${i}.post_attention_layernorm.weight`),
      tensor(`blk.${i}.attn_q.weight`, rows(qkv, hidden, 0, hidden), heads),
      tensor(`blk.${i}.attn_k.weight`, rows(qkv, hidden, hidden, hidden + kv), kvHeads),
      tensor(`blk.${i}.attn_v.weight`, rows(qkv, hidden, hidden + kv, hidden + 2 * kv)),
      tensor(`blk.${i}.attn_output.weight`, rows(await of('attn.o_proj'), hidden, 0, hidden)),
      tensor(`blk.${i}.ffn_gate.weight`, rows(await of('mlp.gate_proj'), hidden, 0, ffn)),
      tensor(`blk.${i}.ffn_up.weight`, rows(await of('mlp.up_proj'), hidden, 0, ffn)),
      tensor(`blk.${i}.ffn_down.weight`, rows(await of('mlp.down_proj'), ffn, 0, hidden)),
    );
  }
  const pairs = tinyPairs(shape, { 'llama.attention.layer_norm_rms_epsilon': { f32: 1e-6 } });
  return writeGguf({ pairs, tensors });
}

describe('the llama graph', () => {
  it('computes what an independent implementation computes on the same weights', async () => {
    const golden = JSON.parse(readFileSync(join(testdata, 'golden/tiny-llama.json'), 'utf8')) as {
      ids: number[];
      base: { argmax: number[]; logits_last: number[] };
    };
    const file = join(dir, 'llama.gguf');
    await writeFile(file, await ggufOfFixture());
    const { onnxFile } = await importGguf(file, join(dir, 'llama'), { dtype: 'fp32' });
    const decoder = await DecoderSession.open(onnxFile);
    try {
      const { logits } = await decoder.forward({ inputIds: [golden.ids] });
      const at = (i: number) => logits.data.subarray(i * shape.vocabulary, (i + 1) * shape.vocabulary);
      for (const [i, id] of golden.base.argmax.entries()) expect(at(i).indexOf(Math.max(...at(i)))).toBe(id);
      const last = at(golden.ids.length - 1);
      for (const [k, logit] of golden.base.logits_last.entries()) {
        expect(Math.abs(last[k]! - logit)).toBeLessThan(1e-3);
      }
    } finally {
      await decoder.dispose();
    }
  });
});
