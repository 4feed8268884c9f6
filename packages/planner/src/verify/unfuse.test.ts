import { asFloat32, type TensorValue } from '@cqil/runtime-gpu';
import { describe, expect, it } from 'vitest';
import { analyze } from '../anatomy/index.js';
import { checkModel } from '../onnx/check.js';
import { DataType, Model, makeNode, makeValueInfo, readModel, Tensor } from '../onnx/index.js';
import { withVariant } from '../variant/index.js';
import { maxAbsDifference } from './compare.js';
import { testdata } from './test/fixtures.js';
import { unfuseSkipNorms } from './unfuse.js';

const H = 8;

/** One fused node with every optional input it can have, and its sum. */
function fused(opType: string, weights: readonly string[], epsilon?: number): Model {
  const model = Model.create({ producer: 'test', irVersion: 8, opsets: { '': 18, 'com.microsoft': 1 } });
  const { graph } = model;
  const shape = ['b', 's', H];
  for (const name of ['x', 'skip']) graph.inputs.push(makeValueInfo(name, DataType.FLOAT, shape));
  for (const name of ['normed', 'sum']) graph.outputs.push(makeValueInfo(name, DataType.FLOAT, shape));
  for (const [k, name] of weights.entries()) {
    if (name === '') continue;
    const values = Float32Array.from({ length: H }, (_, i) => Math.sin(i * (k + 1)) + 0.5);
    graph.addInitializer(Tensor.create(name, DataType.FLOAT, [H], values));
  }
  graph.addNode(
    makeNode(opType, ['x', 'skip', ...weights], ['normed', '', '', 'sum'], {
      name: 'fused',
      domain: 'com.microsoft',
      ...(epsilon === undefined ? {} : { attributes: { epsilon: { float: epsilon } } }),
    }),
  );
  return model;
}

const wave = (scale: number): TensorValue => ({
  type: 'float32',
  dims: [2, 3, H],
  data: Float32Array.from({ length: 6 * H }, (_, i) => scale * Math.cos(i * 1.7)),
});

describe('unfuseSkipNorms', () => {
  it.each([
    ['SkipSimplifiedLayerNormalization', ['gamma'], 1e-5],
    ['SkipSimplifiedLayerNormalization', ['gamma', 'bias'], 1e-2],
    ['SkipSimplifiedLayerNormalization', ['gamma'], undefined],
    ['SkipLayerNormalization', ['gamma'], 1e-5],
    ['SkipLayerNormalization', ['gamma', 'beta'], 1e-2],
    ['SkipLayerNormalization', ['gamma', 'beta', 'bias'], undefined],
    ['SkipLayerNormalization', ['gamma', '', 'bias'], 1e-5],
  ] as const)('%s of %j with epsilon %s computes the same', async (opType, weights, epsilon) => {
    const model = fused(opType, weights, epsilon);
    const apart = unfuseSkipNorms(model);
    expect(apart.graph.nodes.some((node) => node.opType === opType)).toBe(false);
    checkModel(apart);
    const feeds = { x: wave(0.1), skip: wave(-0.03) };
    const options = { threads: 1, graphOptimization: 'disabled' } as const;
    const expected = await withVariant(model, options, (session) => session.run(feeds));
    const found = await withVariant(apart, options, (session) => session.run(feeds));
    for (const name of ['normed', 'sum']) {
      expect(maxAbsDifference(asFloat32(found[name]!), asFloat32(expected[name]!))).toBeLessThan(1e-5);
    }
  });

  it('makes every state of the stream a value under the name that the anatomy gives it', async () => {
    const model = await readModel(testdata('genai-fp32/llama/model.onnx'));
    const made = unfuseSkipNorms(model).graph.producers();
    for (const layer of analyze(model).layers) {
      expect(made.has(layer.input)).toBe(true);
      expect(made.has(layer.output)).toBe(true);
    }
    expect(model.graph.nodes.some((node) => node.opType === 'SkipSimplifiedLayerNormalization')).toBe(true);
  });
});
