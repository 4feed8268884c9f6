import * as transformers from '@huggingface/transformers';
import { describe, expect, it } from 'vitest';
import { chooseGraph } from './graph-choice.js';

type Config = Parameters<typeof chooseGraph>[2];

function choose(config: object, options: Parameters<typeof chooseGraph>[3] = {}) {
  const own = new transformers.PretrainedConfig({ model_type: 'llama', ...config }) as Config;
  return chooseGraph(transformers, '/no/where', own, options);
}

describe('chooseGraph', () => {
  it("is Transformers.js's default without options", async () => {
    expect(await choose({})).toEqual({ graph: 'onnx/model.onnx', dtype: 'fp32', data: [] });
  });

  it.each([
    ['q4', 'onnx/model_q4.onnx'],
    ['q8', 'onnx/model_quantized.onnx'],
    ['fp16', 'onnx/model_fp16.onnx'],
    ['q4f16', 'onnx/model_q4f16.onnx'],
  ] as const)('takes dtype %s', async (dtype, graph) => {
    expect(await choose({}, { dtype })).toEqual({ graph, dtype, data: [] });
    expect(await choose({ 'transformers.js_config': { dtype } })).toEqual({ graph, dtype, data: [] });
    expect(await choose({}, { dtype: { model: dtype } })).toEqual({ graph, dtype, data: [] });
  });

  it("takes the dtype of the config's section for the device", async () => {
    const config = {
      'transformers.js_config': { dtype: 'q4', device_config: { webgpu: { dtype: 'q4f16' } } },
    };
    expect((await choose(config)).dtype).toBe('q4');
    expect((await choose(config, { device: 'webgpu' })).dtype).toBe('q4f16');
    expect((await choose(config, { device: 'webgpu', dtype: 'fp16' })).dtype).toBe('fp16');
  });

  it('takes subfolder and model_file_name', async () => {
    expect(await choose({}, { subfolder: '', model_file_name: 'decoder', dtype: 'q4' })).toEqual({
      graph: 'decoder_q4.onnx',
      dtype: 'q4',
      data: [],
    });
  });

  it('names the files of external data that the config or the option tells', async () => {
    const config = { 'transformers.js_config': { use_external_data_format: { 'model_q4.onnx': 2 } } };
    expect((await choose(config, { dtype: 'q4' })).data).toEqual([
      'onnx/model_q4.onnx_data',
      'onnx/model_q4.onnx_data_1',
    ]);
    expect((await choose(config)).data).toEqual([]);
    expect((await choose({}, { use_external_data_format: true })).data).toEqual(['onnx/model.onnx_data']);
    expect((await choose(config, { dtype: 'q4', use_external_data_format: false })).data).toEqual([]);
  });

  it.each([
    ['an encoder', { model_type: 'bert', architectures: ['BertModel'] }],
    ['a sequence-to-sequence model', { model_type: 't5', architectures: ['T5ForConditionalGeneration'] }],
    ['an image model', { model_type: 'vit', architectures: ['ViTForImageClassification'] }],
    [
      'a model of several graphs',
      {
        model_type: 'gemma3n',
        architectures: ['Gemma3nForConditionalGeneration'],
        text_config: { model_type: 'gemma3n_text' },
      },
    ],
    ['a config without a type', { model_type: undefined }],
  ])('refuses %s', async (_name, config) => {
    await expect(choose(config)).rejects.toMatchObject({ code: 'MODEL_NOT_DECODER' });
  });
});
