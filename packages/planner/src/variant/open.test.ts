import { copyFile, mkdir, mkdtemp, readdir, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { asFloat32, DecoderSession } from '@cqil/runtime-gpu';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { analyze } from '../anatomy/index.js';
import { DataType, type Model, makeValueInfo, readModel, Tensor } from '../onnx/index.js';
import { openVariant, withVariant } from './open.js';

const testdata = (file: string) => fileURLToPath(new URL(`../../../../testdata/${file}`, import.meta.url));
const ids = [[5, 17, 256, 3, 99, 400]];

async function logitsOf(decoder: DecoderSession): Promise<Float32Array> {
  try {
    return (await decoder.forward({ inputIds: ids, returnCache: false })).logits.data;
  } finally {
    await decoder.dispose();
  }
}

async function variantLogits(model: Model): Promise<Float32Array> {
  return logitsOf(new DecoderSession(await openVariant(model, { threads: 1 })));
}

let temporary: string;
/** ONNX Runtime keeps files of its own in the temporary folder; ours begin with our name. */
async function leftovers(): Promise<string[]> {
  return (await readdir(temporary)).filter((name) => name.startsWith('cqil-'));
}

beforeEach(async () => {
  temporary = await mkdtemp(path.join(tmpdir(), 'variant-test-'));
  vi.stubEnv('TMPDIR', temporary);
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await rm(temporary, { recursive: true, force: true });
});

describe('openVariant', () => {
  it.each([
    'optimum/llama/onnx/model.onnx',
    'optimum/llama/onnx/model_quantized.onnx',
    'optimum/gpt2/onnx/model.onnx',
    'genai-fp32/llama/model.onnx',
    'genai-int4/llama/model.onnx',
  ])('%s: an unchanged variant computes what the file does', async (file) => {
    const model = await readModel(testdata(file));
    const original = await logitsOf(await DecoderSession.open(testdata(file), { threads: 1 }));
    expect(await variantLogits(model)).toEqual(original);
    expect(await leftovers()).toEqual([]);
  });

  it('gives out values that were inside', async () => {
    const model = await readModel(testdata('optimum/llama/onnx/model.onnx'));
    const variant = model.clone();
    const inner = analyze(model).layers[2]!.input;
    variant.graph.outputs.push(makeValueInfo(inner, DataType.FLOAT, ['batch', 'seq', 64]));
    await withVariant(variant, { threads: 1 }, async (session) => {
      const { outputs } = await new DecoderSession(session).forward({ inputIds: ids, outputs: [inner] });
      expect(outputs[inner]!.dims.slice(0, 2)).toEqual([1, 6]);
      expect(asFloat32(outputs[inner]!).some((value) => value !== 0)).toBe(true);
    });
  });

  it('computes with weights that were changed in memory', async () => {
    const model = await readModel(testdata('genai-fp32/llama/model.onnx'));
    const before = await variantLogits(model);
    const changed = model.clone();
    const [name, tensor] = [...model.graph.initializers].find(([key]) => key.includes('down_proj'))!;
    changed.graph.initializers.set(
      name,
      Tensor.create(name, tensor.dataType, tensor.dims, new Uint8Array(tensor.byteLength)),
    );
    expect(await variantLogits(changed)).not.toEqual(before);
  });

  it('reaches data through the links of a hub cache', async () => {
    const source = testdata('genai-fp32/llama');
    await mkdir(path.join(temporary, 'blobs'));
    await mkdir(path.join(temporary, 'snapshots/1'), { recursive: true });
    for (const [name, blob] of [
      ['model.onnx', 'aaaa'],
      ['model.onnx.data', 'bbbb'],
    ] as const) {
      await copyFile(path.join(source, name), path.join(temporary, 'blobs', blob));
      await symlink(`../../blobs/${blob}`, path.join(temporary, 'snapshots/1', name));
    }
    const linked = await readModel(path.join(temporary, 'snapshots/1/model.onnx'));
    const plain = await readModel(path.join(source, 'model.onnx'));
    expect(await variantLogits(linked)).toEqual(await variantLogits(plain));
  });

  it('leaves nothing behind when the graph cannot be loaded', async () => {
    const variant = (await readModel(testdata('optimum/llama/onnx/model.onnx'))).clone();
    variant.graph.nodes.splice(40, 1);
    await expect(openVariant(variant)).rejects.toMatchObject({ code: 'MODEL_LOAD_FAILED' });
    expect(await leftovers()).toEqual([]);
  });
});
