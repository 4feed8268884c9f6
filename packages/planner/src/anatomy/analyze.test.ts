import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { DataType, Model, makeNode, makeValueInfo, readModel } from '../onnx/index.js';
import { analyze } from './index.js';

const testdata = path.resolve(import.meta.dirname, '../../../../testdata');

const FIXTURES = [
  ['optimum/llama/onnx/model.onnx', 'rms'],
  ['optimum/llama/onnx/model_fp16.onnx', 'rms'],
  ['optimum/llama/onnx/model_quantized.onnx', 'rms'],
  ['optimum/gpt2/onnx/model.onnx', 'layer'],
  ['optimum/qwen2/onnx/model.onnx', 'rms'],
  ['optimum/phi3/onnx/model.onnx', 'rms'],
  ['genai-fp32/llama/model.onnx', 'rms'],
  ['genai-fp32/qwen2/model.onnx', 'rms'],
  ['genai-int4/llama/model.onnx', 'rms'],
] as const;

describe.each(FIXTURES)('%s', (file, norm) => {
  it('has six sequential layers, each with its norms and its cache', async () => {
    const { layers, streamStart, streamEnd } = analyze(await readModel(path.join(testdata, file)));
    expect(layers).toHaveLength(6);
    for (const [index, layer] of layers.entries()) {
      expect(layer).toMatchObject({ index, kind: 'sequential', ungroupable: undefined });
      expect(layer.cache).toEqual({
        inputs: [`past_key_values.${index}.key`, `past_key_values.${index}.value`],
        outputs: [`present.${index}.key`, `present.${index}.value`],
      });
      for (const branch of [layer.attention, layer.ffn]) {
        expect(branch).toMatchObject({ norm, postNorm: 'none' });
        expect(branch?.normOutput).toBeDefined();
      }
      expect(layer.input).toBe(layers[index - 1]?.output ?? streamStart);
    }
    expect(layers.at(-1)?.output).toBe(streamEnd);
  });
});

describe.each([
  ['gemma3_text', { norm: 'rms', postNorm: 'rms' }, 'sequential'],
  ['olmo2', { norm: 'none', postNorm: 'rms' }, 'sequential'],
  ['qwen3', { norm: 'rms', postNorm: 'none' }, 'sequential'],
  ['granite', { norm: 'rms', postNorm: 'none' }, 'sequential'],
  ['opt', { norm: 'layer', postNorm: 'none' }, 'sequential'],
  ['bloom', { norm: 'layer', postNorm: 'none' }, 'sequential'],
  ['phi', { norm: 'layer', postNorm: 'none' }, 'parallel'],
  ['gpt_neox', { norm: 'layer', postNorm: 'none' }, 'parallel'],
] as const)('%s', (family, norms, kind) => {
  it('is told apart by its graph alone', async () => {
    const file = path.join(testdata, 'families', family, 'optimum/onnx/model.onnx');
    const { layers } = analyze(await readModel(file));
    expect(layers).toHaveLength(4);
    for (const layer of layers) {
      expect(layer.kind).toBe(kind);
      expect(layer.attention).toMatchObject(norms);
      expect(layer.ffn === undefined).toBe(kind === 'parallel');
    }
  });
});

/** `x + Attention(x, past)`, then `f + Ffn(f)`, twice; the operators are made up, as nothing but edges counts. */
function madeUp(change: (model: Model) => void = () => undefined): Model {
  const model = Model.create({ producer: 'test', irVersion: 10, opsets: { '': 21, 'made.up': 1 } });
  const { graph } = model;
  const state = ['batch', 'seq', 8];
  graph.inputs.push(makeValueInfo('ids', DataType.INT64, ['batch', 'seq']));
  const node = (opType: string, inputs: string[], outputs: string[]) =>
    graph.addNode(makeNode(opType, inputs, outputs, { name: `${opType}:${outputs[0]}`, domain: 'made.up' }));
  const add = (a: string, b: string, out: string) =>
    graph.addNode(makeNode('Add', [a, b], [out], { name: `Add:${out}` }));
  node('Embed', ['ids'], ['x0']);
  for (const i of [0, 1]) {
    graph.inputs.push(makeValueInfo(`past${i}`, DataType.FLOAT, state));
    node('Attention', [`x${i}`, `past${i}`], [`a${i}`, `present${i}`]);
    add(`x${i}`, `a${i}`, `f${i}`);
    node('Ffn', [`f${i}`], [`m${i}`]);
    add(`m${i}`, `f${i}`, `x${i + 1}`);
  }
  node('Head', ['x2'], ['scores']);
  graph.outputs.push(makeValueInfo('scores', DataType.FLOAT, ['batch', 'seq', 32]));
  for (const i of [0, 1]) graph.outputs.push(makeValueInfo(`present${i}`, DataType.FLOAT, state));
  change(model);
  return model;
}

describe('a made-up decoder without a single known name', () => {
  it('is understood', () => {
    const { layers, tokens, logits } = analyze(madeUp());
    expect({ tokens, logits }).toEqual({ tokens: 'ids', logits: 'scores' });
    expect(layers.map(({ input, output, kind, cache }) => ({ input, output, kind, cache }))).toEqual([
      { input: 'x0', output: 'x1', kind: 'sequential', cache: { inputs: ['past0'], outputs: ['present0'] } },
      { input: 'x1', output: 'x2', kind: 'sequential', cache: { inputs: ['past1'], outputs: ['present1'] } },
    ]);
  });

  it('does not mind shapes read across layers', () => {
    const model = madeUp(({ graph }) => {
      graph.nodes.unshift(makeNode('Shape', ['m0'], ['shape'], { name: 'shape' }));
      graph.nodes.find(({ name }) => name === 'Attention:a1')?.input.push('shape');
    });
    expect(analyze(model).layers).toHaveLength(2);
  });

  it('keeps a layer out of groups whose hidden state is an output', () => {
    const model = madeUp(({ graph }) => {
      graph.outputs.push(makeValueInfo('f1', DataType.FLOAT, ['batch', 'seq', 8]));
    });
    const [first, second] = analyze(model).layers;
    expect(first?.ungroupable).toBeUndefined();
    expect(second?.ungroupable).toContain('"f1"');
  });

  it.each<[string, string, (model: Model) => void]>([
    [
      'ANATOMY_ENTANGLED',
      'a layer that reads what is inside the one before it',
      ({ graph }) => graph.nodes.find(({ name }) => name === 'Ffn:m1')?.input.push('a0'),
    ],
    [
      'ANATOMY_STREAM_BROKEN',
      'something that changes the stream between layers',
      ({ graph }) => {
        const broken = makeNode('Norm', ['x1'], ['n1'], { name: 'norm', domain: 'made.up' });
        for (const node of graph.nodes)
          node.input = node.input.map((input) => (input === 'x1' ? 'n1' : input));
        graph.nodes.push(broken);
      },
    ],
    [
      'ANATOMY_NO_CACHE',
      'a graph without a cache',
      ({ graph }) => {
        graph.inputs = graph.inputs.filter(({ name }) => name === 'ids');
        graph.outputs = graph.outputs.filter(({ name }) => name === 'scores');
        for (const node of graph.nodes) node.input = node.input.filter((input) => !input.startsWith('past'));
      },
    ],
    [
      'ANATOMY_CROSS_ATTENTION',
      'a layer that reads an encoder',
      ({ graph }) => {
        graph.inputs.push(makeValueInfo('encoded', DataType.FLOAT, ['batch', 'source', 8]));
        for (const i of [0, 1]) graph.nodes.find(({ name }) => name === `Ffn:m${i}`)?.input.push('encoded');
      },
    ],
    [
      'ANATOMY_NO_LOGITS',
      'a graph that gives no floating-point output first',
      ({ graph }) => {
        graph.outputs = [makeValueInfo('ids', DataType.INT64, ['batch', 'seq'])];
      },
    ],
  ])('%s: %s', (code, _, change) => {
    expect(() => analyze(madeUp(change))).toThrowError(expect.objectContaining({ code }));
  });
});
