import path from 'node:path';
import { create } from '@bufbuild/protobuf';
import { asFloat32, openSession, type TensorValue } from '@cqil/runtime-gpu';
import { describe, expect, it } from 'vitest';
import { withVariant } from '../variant/index.js';
import { checkModel } from './check.js';
import { extractSubmodel, SubmodelCutter } from './extract.js';
import { AttributeProtoSchema, GraphProtoSchema } from './gen/onnx_pb.js';
import { DataType, Model, makeNode, makeValueInfo, readModel, Tensor } from './index.js';

const testdata = path.resolve(import.meta.dirname, '../../../../testdata');

function floats(values: readonly number[], dims: readonly number[] = [values.length]): TensorValue {
  return { type: 'float32', dims, data: Float32Array.from(values) };
}

/** h = x · w1; y = h + w2, reshaped to the shape of x; z = Relu(y). */
function chain(): Model {
  const model = Model.create({ producer: 'test', irVersion: 8, opsets: { '': 18 } });
  const { graph } = model;
  graph.inputs.push(
    makeValueInfo('x', DataType.FLOAT, ['n']),
    makeValueInfo('unused', DataType.FLOAT, ['n']),
  );
  graph.outputs.push(makeValueInfo('z', DataType.FLOAT, ['n']));
  graph.addInitializer(Tensor.create('w1', DataType.FLOAT, [1], Float32Array.of(3)));
  graph.addInitializer(Tensor.create('w2', DataType.FLOAT, [1], Float32Array.of(-5)));
  graph.addNode(makeNode('Mul', ['x', 'w1'], ['h'], { name: 'mul' }));
  graph.addNode(makeNode('Add', ['h', 'w2'], ['y0'], { name: 'add' }));
  graph.addNode(makeNode('Shape', ['x'], ['shape'], { name: 'shape' }));
  graph.addNode(makeNode('Reshape', ['y0', 'shape'], ['y'], { name: 'reshape' }));
  graph.addNode(makeNode('Relu', ['y'], ['z'], { name: 'relu' }));
  return model;
}

async function run(model: Model, feeds: Record<string, TensorValue>): Promise<Record<string, number[]>> {
  return withVariant(model, { threads: 1 }, async (session) => {
    const results = await session.run(feeds);
    return Object.fromEntries(Object.entries(results).map(([name, value]) => [name, [...asFloat32(value)]]));
  });
}

const H = { name: 'h', dataType: DataType.FLOAT, shape: ['n'] };

describe('extractSubmodel', () => {
  it('keeps what the output needs and nothing else', async () => {
    const part = extractSubmodel(chain(), [], ['h']);
    expect(part.graph.nodes.map(({ name }) => name)).toEqual(['mul']);
    expect([...part.graph.initializers.keys()]).toEqual(['w1']);
    expect(part.graph.inputs.map(({ name }) => name)).toEqual(['x']);
    expect(await run(part, { x: floats([1, 2]) })).toEqual({ h: [3, 6] });
  });

  it('begins at a cut and keeps the other inputs that are needed', async () => {
    const part = extractSubmodel(chain(), [H], ['z']);
    expect(part.graph.nodes.map(({ name }) => name)).toEqual(['add', 'shape', 'reshape', 'relu']);
    expect([...part.graph.initializers.keys()]).toEqual(['w2']);
    expect(part.graph.inputs.map(({ name }) => name)).toEqual(['h', 'x']);
    expect(await run(part, { h: floats([1, 9]), x: floats([0, 0]) })).toEqual({ z: [0, 4] });
    checkModel(part);
  });

  it('reads shapes off the cut value where it may', async () => {
    const part = extractSubmodel(chain(), [H], ['z'], { sameShape: new Map([['x', 'h']]) });
    expect(part.graph.inputs.map(({ name }) => name)).toEqual(['h']);
    expect(await run(part, { h: floats([1, 9]) })).toEqual({ z: [0, 4] });
  });

  it('does not take a value of the same shape for the value itself', () => {
    const model = chain();
    model.graph.addNode(makeNode('Add', ['z', 'x'], ['both'], { name: 'both' }));
    const part = extractSubmodel(model, [H], ['both'], { sameShape: new Map([['x', 'h']]) });
    expect(part.graph.nodes.at(-1)!.input).toEqual(['z', 'x']);
    expect(part.graph.inputs.map(({ name }) => name)).toEqual(['h', 'x']);
  });

  it('follows what subgraphs capture', async () => {
    const model = chain();
    const branches = ['then_branch', 'else_branch'].map((name, index) =>
      create(AttributeProtoSchema, {
        name,
        type: 5,
        g: create(GraphProtoSchema, {
          name,
          node: [makeNode('Identity', [index === 0 ? 'h' : 'w2'], [`${name}_out`], { name })],
          output: [makeValueInfo(`${name}_out`, DataType.FLOAT, ['n'])],
        }),
      }),
    );
    model.graph.inputs.push(makeValueInfo('c', DataType.BOOL, []));
    const node = model.graph.addNode(makeNode('If', ['c'], ['chosen'], { name: 'if' }));
    node.attribute.push(...branches);
    const part = extractSubmodel(model, [], ['chosen']);
    expect(part.graph.nodes.map(({ name }) => name)).toEqual(['mul', 'if']);
    expect([...part.graph.initializers.keys()]).toEqual(['w1', 'w2']);
    const yes: TensorValue = { type: 'bool', dims: [], data: Uint8Array.of(1) };
    expect(await run(part, { x: floats([2]), c: yes })).toEqual({ chosen: [6] });
  });

  it('leaves the source as it was', () => {
    const model = chain();
    const before = model.graph.nodes.map((node) => [...node.input]);
    extractSubmodel(model, [H], ['z'], { sameShape: new Map([['x', 'h']]) });
    expect(model.graph.nodes.map((node) => [...node.input])).toEqual(before);
    expect(model.graph.inputs.map(({ name }) => name)).toEqual(['x', 'unused']);
  });

  it.each([
    ['no node makes', 'nowhere'],
    ['is a weight', 'w1'],
    ['is the cut itself', 'h'],
  ])('refuses an output that %s', (_, output) => {
    expect(() => extractSubmodel(chain(), [H], [output])).toThrow(
      expect.objectContaining({ code: 'ONNX_CUT' }),
    );
  });

  it('refuses a graph that is not whole', () => {
    const model = chain();
    model.graph.nodes = model.graph.nodes.filter(({ name }) => name !== 'shape');
    expect(() => extractSubmodel(model, [H], ['z'])).toThrow(expect.objectContaining({ code: 'ONNX_CUT' }));
  });
});

describe('SubmodelCutter', () => {
  it('cuts a real graph in two that compute what the whole computes', async () => {
    const file = path.join(testdata, 'optimum/llama/onnx/model.onnx');
    const model = await readModel(file);
    const cutter = new SubmodelCutter(model);
    const logits = model.graph.outputs[0]!.name;
    const last = model.graph.nodes.find((node) => node.output.includes(logits))!;
    const hidden = last.input[0]!;
    const ids: TensorValue = { type: 'int64', dims: [1, 3], data: BigInt64Array.of(5n, 17n, 256n) };
    const feeds: Record<string, TensorValue> = {
      input_ids: ids,
      attention_mask: { type: 'int64', dims: [1, 3], data: BigInt64Array.of(1n, 1n, 1n) },
      position_ids: { type: 'int64', dims: [1, 3], data: BigInt64Array.of(0n, 1n, 2n) },
    };
    for (const { name } of model.graph.inputs) feeds[name] ??= floats([], [1, 2, 0, 16]);

    const front = await withVariant(cutter.cut([], [hidden]), { threads: 1 }, (session) =>
      session.run(feeds),
    );
    const back = await run(
      cutter.cut([{ name: hidden, dataType: DataType.FLOAT, shape: ['b', 's', 64] }], [logits]),
      { [hidden]: front[hidden]! },
    );
    const whole = await openSession(file, { threads: 1 });
    const expected = await whole.run(feeds, [logits]);
    await whole.dispose();
    const distance = asFloat32(expected[logits]!).map((value, i) => Math.abs(value - back[logits]![i]!));
    expect(Math.max(...distance)).toBeLessThan(1e-5);
  });
});
