import { asFloat32 } from '@cqil/runtime-gpu';
import { describe, expect, it } from 'vitest';
import { structuralFaults } from '../../onnx/check.js';
import { DataType, Model, makeNode, makeValueInfo, type Node } from '../../onnx/index.js';
import { withVariant } from '../../variant/index.js';
import { checkOpset, raiseOpset } from './opset.js';

function modelOf(version: number, nodes: readonly Node[]): Model {
  const model = Model.create({ producer: 'test', irVersion: 7, opsets: { '': version } });
  model.graph.inputs.push(makeValueInfo('x', DataType.FLOAT, [2, 4]));
  model.graph.outputs.push(makeValueInfo('y', DataType.FLOAT, [2, 'n']));
  model.graph.nodes.push(...nodes);
  return model;
}

const run = (model: Model) =>
  withVariant(model, { threads: 1 }, async (session) => {
    const x = { type: 'float32' as const, dims: [2, 4], data: Float32Array.of(1, 5, 3, 2, -4, 0, 7, 9) };
    return Array.from(asFloat32((await session.run({ x })).y!));
  });

describe('raiseOpset', () => {
  it('brings reductions and splits into their new form', async () => {
    const nodes = () => [
      makeNode('Split', ['x'], ['a', 'b'], { name: 'split', attributes: { axis: { int: 1 } } }),
      makeNode('ReduceMean', ['a'], ['mean'], { name: 'mean', attributes: { axes: { ints: [-1] } } }),
      makeNode('Sub', ['b', 'mean'], ['y'], { name: 'sub' }),
    ];
    const model = modelOf(13, nodes());
    const before = await run(model);
    raiseOpset(model, 21);
    expect(model.opsets.get('')).toBe(21);
    expect(structuralFaults(model)).toEqual([]);
    expect(await run(model)).toEqual(before);
    expect(before).toEqual([0, -1, 9, 11]);
  });

  it('leaves a newer version as it is', () => {
    const model = modelOf(22, [makeNode('Neg', ['x'], ['y'], { name: 'neg' })]);
    raiseOpset(model, 21);
    expect(model.opsets.get('')).toBe(22);
    expect(model.rest.irVersion).toBe(7n);
  });

  it.each([
    [12, 'Neg'],
    [18, 'GroupNormalization'],
    [17, 'Resize'],
  ])('refuses version %i with %s', (version, op) => {
    const model = modelOf(version, [makeNode(op, ['x'], ['y'], { name: 'node' })]);
    for (const refusing of [checkOpset, raiseOpset]) {
      expect(() => refusing(model, 21)).toThrow(expect.objectContaining({ code: 'QDQ_OPSET' }));
    }
    expect(model.opsets.get('')).toBe(version);
  });
});
