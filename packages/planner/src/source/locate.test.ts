import { mkdir, mkdtemp, readFile, realpath, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CqilError } from '@cqil/core';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { locateModel, modelFolderRoots } from './index.js';

const testdata = fileURLToPath(new URL('../../../../testdata', import.meta.url));
/** The first bytes of an ONNX file: ir_version 8. */
const onnx = Uint8Array.of(0x08, 0x08);

let dir: string;
beforeEach(async () => {
  dir = await realpath(await mkdtemp(join(tmpdir(), 'cqil-locate-')));
});
afterEach(() => rm(dir, { recursive: true }));

async function put(path: string, content: string | Uint8Array = onnx): Promise<string> {
  const file = join(dir, path);
  await mkdir(dirname(file), { recursive: true });
  await writeFile(file, content);
  return file;
}

async function failure(path: string, dtype?: string): Promise<CqilError> {
  const error = await locateModel(path, { dtype }).then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof CqilError)) throw new Error(`expected a CqilError, got ${String(error)}`);
  return error;
}

describe('locateModel in a Transformers.js folder', () => {
  it('takes fp32 of a folder with several, as Transformers.js does in node', async () => {
    const source = await locateModel(join(testdata, 'optimum/llama'));
    expect(source).toMatchObject({
      root: join(testdata, 'optimum/llama'),
      onnxRelative: 'onnx/model.onnx',
      dtype: 'fp32',
      layout: 'transformers',
      available: ['fp32', 'fp16', 'q8'],
    });
    expect(source.onnxFile).toBe(join(testdata, 'optimum/llama/onnx/model.onnx'));
  });

  it.each([
    ['fp16', 'onnx/model_fp16.onnx'],
    ['q8', 'onnx/model_quantized.onnx'],
    ['auto', 'onnx/model.onnx'],
  ])('takes %s when asked', async (dtype, file) => {
    expect((await locateModel(join(testdata, 'optimum/llama'), { dtype })).onnxRelative).toBe(file);
  });

  it.each([
    ['the dtype of the config', { dtype: 'q4' }, 'q4'],
    ['the table by session', { dtype: { model: 'q4f16', encoder: 'fp32' } }, 'q4f16'],
    ['the section of the device', { dtype: 'q4', device_config: { cpu: { dtype: 'q4f16' } } }, 'q4f16'],
    ['fp32 when the table has no entry for a decoder', { dtype: { encoder: 'q4' } }, 'fp32'],
    ['fp32 when the config names a dtype that does not exist', { dtype: 'q17' }, 'fp32'],
  ])('follows %s', async (_, custom, dtype) => {
    await put('config.json', JSON.stringify({ 'transformers.js_config': custom }));
    for (const name of ['', '_q4', '_q4f16']) await put(`onnx/model${name}.onnx`);
    expect((await locateModel(dir)).dtype).toBe(dtype);
  });

  it('takes the only graph there is when nothing was asked for', async () => {
    await put('config.json', '{}');
    await put('onnx/model_q4.onnx');
    expect(await locateModel(dir)).toMatchObject({ dtype: 'q4', available: ['q4'] });
  });

  it('finds graphs beside the configs, as Optimum writes them', async () => {
    await put('config.json', '{}');
    await put('model.onnx');
    expect(await locateModel(dir)).toMatchObject({ onnxRelative: 'model.onnx', layout: 'transformers' });
  });

  it('lists what is there when the choice is not', async () => {
    const error = await failure(join(testdata, 'optimum/llama'), 'q4');
    expect(error.code).toBe('MODEL_DTYPE_MISSING');
    expect(error.message).toMatch(/fp32 \(model\.onnx\).*fp16.*q8 \(model_quantized\.onnx\)/);
  });

  it('does not guess among several when the default is missing', async () => {
    await put('onnx/model_q4.onnx');
    await put('onnx/model_fp16.onnx');
    expect(await failure(dir)).toMatchObject({ code: 'MODEL_DTYPE_MISSING' });
  });

  it('refuses a dtype that does not exist', async () => {
    expect(await failure(join(testdata, 'optimum/llama'), 'q5')).toMatchObject({
      code: 'MODEL_DTYPE_UNKNOWN',
    });
  });

  it('lists side files without weights, hidden files or other checkpoints', async () => {
    for (const name of ['config.json', 'tokenizer.json', 'tokenizer.model', 'sub/card.md'])
      await put(name, '{}');
    for (const name of [
      'onnx/model.onnx',
      'onnx/model.onnx_data',
      'onnx/model.onnx_data_1',
      'onnx/model_q4.onnx.data',
      'model.safetensors',
      'model.safetensors.index.json',
      'pytorch_model-00001-of-00002.bin',
      '.gitattributes',
      '.cache/x',
    ]) {
      await put(name);
    }
    const { sideFiles } = await locateModel(dir);
    expect(sideFiles).toEqual(['config.json', 'sub/card.md', 'tokenizer.json', 'tokenizer.model']);
  });

  it('takes a file of a folder with its root and side files', async () => {
    const file = join(testdata, 'optimum/llama/onnx/model_fp16.onnx');
    expect(await locateModel(file)).toMatchObject({
      root: join(testdata, 'optimum/llama'),
      onnxFile: file,
      dtype: 'fp16',
      sideFiles: ['config.json', 'generation_config.json'],
    });
    expect(await failure(file, 'q8')).toMatchObject({ code: 'MODEL_DTYPE_MISSING' });
  });
});

describe('locateModel in other layouts', () => {
  it('reads which graph a GenAI folder uses', async () => {
    const root = join(testdata, 'genai-fp32/llama');
    for (const path of [root, join(root, 'model.onnx')]) {
      expect(await locateModel(path)).toMatchObject({
        root,
        onnxRelative: 'model.onnx',
        layout: 'genai',
        dtype: 'as-is',
        sideFiles: ['genai_config.json'],
      });
    }
    expect(await failure(root, 'q4')).toMatchObject({ code: 'MODEL_DTYPE_MISSING' });
  });

  it('takes a lone file without its neighbours', async () => {
    const file = await put('decoder.onnx');
    await put('letters.txt', 'private');
    expect(await locateModel(file)).toMatchObject({
      layout: 'file',
      onnxRelative: 'decoder.onnx',
      sideFiles: [],
    });
  });

  it('follows the links of a hub cache, from the snapshot and from the model folder', async () => {
    await put('models--a--b/blobs/c0ffee', '{}');
    await put('models--a--b/blobs/beef');
    await put('models--a--b/refs/main', 'rev1\n');
    const snapshot = join(dir, 'models--a--b/snapshots/rev1');
    await mkdir(join(snapshot, 'onnx'), { recursive: true });
    await symlink('../../blobs/c0ffee', join(snapshot, 'config.json'));
    await symlink('../../../blobs/beef', join(snapshot, 'onnx/model.onnx'));
    for (const path of [snapshot, join(dir, 'models--a--b')]) {
      const source = await locateModel(path);
      expect(source).toMatchObject({
        root: snapshot,
        onnxRelative: 'onnx/model.onnx',
        sideFiles: ['config.json'],
      });
      expect(await readFile(source.onnxFile)).toHaveLength(2);
      expect(await modelFolderRoots(source.onnxFile, source.root)).toContain(join(dir, 'models--a--b/blobs'));
    }
    await rm(join(dir, 'models--a--b/blobs/beef'));
    expect(await failure(snapshot)).toMatchObject({ code: 'MODEL_INCOMPLETE' });
  });
});

describe('locateModel on what is no decoder model', () => {
  it('says what is missing', async () => {
    expect(await failure(join(dir, 'nowhere'))).toMatchObject({ code: 'MODEL_NOT_FOUND' });
    expect(await failure(dir)).toMatchObject({ code: 'MODEL_FOLDER_WITHOUT_MODEL' });
    await put('odd/one.onnx');
    await put('odd/two.onnx');
    expect(await failure(join(dir, 'odd'))).toMatchObject({ code: 'MODEL_FOLDER_WITHOUT_MODEL' });
  });

  it.each([
    ['a GGUF file', 'GGUF\u0003\0\0\0'],
    ['an empty file', ''],
    ['a Git LFS pointer', 'version https://git-lfs.github.com/spec/v1\n'],
    ['a zip archive', 'PK\u0003\u0004'],
    ['a text file', '<html>404</html>'],
    ['a safetensors file', '\u0010\0\0\0\0\0\0\0{"a":{}}'],
    ['bytes that start no ONNX model', '\0\0\0\0'],
  ])('tells %s', async (kind, content) => {
    const error = await failure(await put('model.onnx', content));
    expect(error).toMatchObject({ code: 'MODEL_NOT_ONNX' });
    expect(error.found).toContain(kind);
  });

  it('refuses encoders, image models and broken configs', async () => {
    await put('t5/config.json', '{"is_encoder_decoder":true,"model_type":"t5"}');
    await put('t5/onnx/encoder_model.onnx');
    await put('t5/onnx/decoder_model_merged.onnx');
    expect(await failure(join(dir, 't5'))).toMatchObject({ code: 'MODEL_NOT_DECODER' });
    await put('sd/unet.onnx');
    await put('sd/vae_decoder.onnx');
    expect(await failure(join(dir, 'sd'))).toMatchObject({ code: 'MODEL_NOT_DECODER' });
    await put('asr/genai_config.json', '{"model":{"type":"whisper"}}');
    expect(await failure(join(dir, 'asr'))).toMatchObject({ code: 'MODEL_NOT_DECODER' });
    await put('broken/config.json', '{');
    expect(await failure(join(dir, 'broken'))).toMatchObject({ code: 'MODEL_CONFIG_INVALID' });
    await put('evil/genai_config.json', '{"model":{"decoder":{"filename":"../../etc/passwd"}}}');
    expect(await failure(join(dir, 'evil'))).toMatchObject({ code: 'MODEL_CONFIG_INVALID' });
  });
});
