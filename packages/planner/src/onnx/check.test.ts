import path from 'node:path';
import { create } from '@bufbuild/protobuf';
import { describe, expect, it } from 'vitest';
import { setAttribute } from './build.js';
import { checkModel, interfaceDifferences, structuralFaults } from './check.js';
import { AttributeProtoSchema, GraphProtoSchema, OperatorSetIdProtoSchema } from './gen/onnx_pb.js';
import {
  DataType,
  type Graph,
  Model,
  makeNode,
  makeValueInfo,
  type Node,
  readModel,
  Tensor,
} from './index.js';

const testdata = path.resolve(import.meta.dirname, '../../../../testdata');
const FIXTURES = [
  'optimum/llama/onnx/model.onnx',
  'optimum/llama/onnx/model_quantized.onnx',
  'optimum/gpt2/onnx/model.onnx',
  'optimum/qwen2/onnx/model.onnx',
  'optimum/phi3/onnx/model.onnx',
  'genai-fp32/llama/model.onnx',
  'genai-fp32/qwen2/model.onnx',
  'genai-int4/llama/model.onnx',
];

/** y = Relu(x + w), z = If(x > 0) y else w. */
function tiny(): Model {
  const model = Model.create({ producer: 'test', irVersion: 8, opsets: { '': 18 } });
  const { graph } = model;
  graph.inputs.push(makeValueInfo('x', DataType.FLOAT, ['n']), makeValueInfo('c', DataType.BOOL, []));
  graph.outputs.push(makeValueInfo('y', DataType.FLOAT, ['n']), makeValueInfo('z', DataType.FLOAT, ['n']));
  graph.addInitializer(Tensor.create('w', DataType.FLOAT, [1], Float32Array.of(1)));
  graph.addNode(makeNode('Add', ['x', 'w'], ['s'], { name: 'sum' }));
  graph.addNode(makeNode('Relu', ['s'], ['y'], { name: 'relu' }));
  const choose = graph.addNode(makeNode('If', ['c'], ['z'], { name: 'choose' }));
  for (const [name, from] of [
    ['then_branch', 'y'],
    ['else_branch', 'w'],
  ] as const) {
    const branch = create(GraphProtoSchema, {
      name,
      node: [makeNode('Identity', [from], [`${name}_out`], { name: `${name}/copy` })],
      output: [makeValueInfo(`${name}_out`, DataType.FLOAT, ['n'])],
    });
    choose.attribute.push(create(AttributeProtoSchema, { name, type: 5, g: branch }));
  }
  return model;
}

function node(model: Model, name: string): Node {
  return model.graph.nodes.find((candidate) => candidate.name === name)!;
}

function branch(model: Model, index: number) {
  return node(model, 'choose').attribute[index]!.g!;
}

describe('structuralFaults', () => {
  it.each(FIXTURES)('finds nothing wrong with %s', async (file) => {
    expect(structuralFaults(await readModel(path.join(testdata, file)))).toEqual([]);
  });

  it('finds what converters to float16 leave behind: casts at the end of the list', async () => {
    const faults = structuralFaults(
      await readModel(path.join(testdata, 'optimum/llama/onnx/model_fp16.onnx')),
    );
    expect(new Set(faults.map((fault) => fault.code))).toEqual(new Set(['ONNX_NODE_ORDER']));
  });

  it('finds nothing wrong with a graph that has subgraphs', () => {
    expect(() => checkModel(tiny())).not.toThrow();
  });

  const DAMAGE: [what: string, code: string, named: string, damage: (model: Model) => void][] = [
    ['no IR version', 'ONNX_IR_VERSION', '0', (m) => (m.rest.irVersion = 0n)],
    [
      'an operator set that is not imported',
      'ONNX_OPSET',
      'relu',
      (m) => (node(m, 'relu').domain = 'com.other'),
    ],
    ['no operator sets at all', 'ONNX_OPSET', 'sum', (m) => (m.rest.opsetImport = [])],
    [
      'an operator set imported twice',
      'ONNX_OPSET',
      'twice',
      (m) => m.rest.opsetImport.push(create(OperatorSetIdProtoSchema, { domain: 'ai.onnx', version: 18n })),
    ],
    ['an operator set of version 0', 'ONNX_OPSET', '0', (m) => (m.rest.opsetImport[0]!.version = 0n)],
    ['a graph without a name', 'ONNX_NAME', 'graph', (m) => (m.graph.rest.name = '')],
    ['a node without an operator', 'ONNX_NAME', 'relu', (m) => (node(m, 'relu').opType = '')],
    ['a value made twice', 'ONNX_DUPLICATE_NAME', '"y"', (m) => (node(m, 'sum').output = ['y'])],
    [
      'a value with the name of an input',
      'ONNX_DUPLICATE_NAME',
      '"x"',
      (m) => (node(m, 'sum').output = ['x']),
    ],
    [
      'a value with the name of a weight',
      'ONNX_DUPLICATE_NAME',
      '"w"',
      (m) => (node(m, 'sum').output = ['w']),
    ],
    ['two inputs of one name', 'ONNX_DUPLICATE_NAME', '"x"', (m) => m.graph.inputs.push(m.graph.inputs[0]!)],
    [
      'two outputs of one name',
      'ONNX_DUPLICATE_NAME',
      '"y"',
      (m) => m.graph.outputs.push(m.graph.outputs[0]!),
    ],
    [
      'a node before what it reads',
      'ONNX_NODE_ORDER',
      '"s"',
      (m) => (m.graph.nodes = [node(m, 'relu'), node(m, 'sum'), node(m, 'choose')]),
    ],
    ['a cycle', 'ONNX_CYCLE', '"y"', (m) => (node(m, 'sum').input = ['x', 'y'])],
    ['a value that nothing makes', 'ONNX_DANGLING_INPUT', '"t"', (m) => (node(m, 'relu').input = ['t'])],
    ['an output that nothing makes', 'ONNX_OUTPUT_MISSING', '"y"', (m) => (node(m, 'relu').output = ['u'])],
    [
      'an output without a type',
      'ONNX_VALUE_TYPE',
      '"y"',
      (m) => (m.graph.outputs[0] = makeValueInfo('y', DataType.UNDEFINED, ['n'])),
    ],
    [
      'a weight of unknown type',
      'ONNX_TENSOR_TYPE',
      '"w"',
      (m) => m.graph.initializers.set('w', Tensor.create('w', 99, [1], Float32Array.of(1))),
    ],
    [
      'a weight under another name',
      'ONNX_NAME',
      '"v"',
      (m) => m.graph.initializers.set('w', Tensor.create('v', DataType.FLOAT, [1], Float32Array.of(1))),
    ],
    [
      'a weight that an old model does not list',
      'ONNX_DANGLING_INPUT',
      '"w"',
      (m) => (m.rest.irVersion = 3n),
    ],
    [
      'an attribute twice',
      'ONNX_ATTRIBUTE',
      'relu',
      (m) => {
        setAttribute(node(m, 'relu'), 'a', { int: 1 });
        node(m, 'relu').attribute.push(node(m, 'relu').attribute[0]!);
      },
    ],
    [
      'an attribute without a type',
      'ONNX_ATTRIBUTE',
      '"a"',
      (m) => node(m, 'relu').attribute.push(create(AttributeProtoSchema, { name: 'a', i: 1n })),
    ],
    [
      'an attribute with two values',
      'ONNX_ATTRIBUTE',
      '"a"',
      (m) =>
        node(m, 'relu').attribute.push(
          create(AttributeProtoSchema, { name: 'a', type: 7, ints: [1n], floats: [1] }),
        ),
    ],
    [
      'an attribute without its tensor',
      'ONNX_ATTRIBUTE',
      '"a"',
      (m) => node(m, 'relu').attribute.push(create(AttributeProtoSchema, { name: 'a', type: 4 })),
    ],
    [
      'a subgraph that captures nothing real',
      'ONNX_DANGLING_INPUT',
      '"gone"',
      (m) => (branch(m, 0).node[0]!.input = ['gone']),
    ],
    [
      'a subgraph that captures a value made later',
      'ONNX_NODE_ORDER',
      'made by Relu "relu"',
      (m) => {
        m.graph.nodes = [node(m, 'choose'), node(m, 'sum'), node(m, 'relu')];
      },
    ],
    [
      'a subgraph that takes an outer name',
      'ONNX_DUPLICATE_NAME',
      '"s"',
      (m) => {
        branch(m, 1).node[0]!.output = ['s'];
        branch(m, 1).output[0]!.name = 's';
      },
    ],
    [
      'a subgraph without its output',
      'ONNX_OUTPUT_MISSING',
      'then_branch_out',
      (m) => (branch(m, 0).node[0]!.output = ['q']),
    ],
  ];

  it.each(DAMAGE)('reports %s (%s), naming %s', (_, code, named, damage) => {
    const model = tiny();
    damage(model);
    const faults = structuralFaults(model);
    expect(faults.map((fault) => fault.code)).toContain(code);
    expect(faults.find((fault) => fault.code === code)!.message).toContain(named);
    expect(() => checkModel(model)).toThrow();
  });
});

describe('interfaceDifferences', () => {
  const inputs = [
    makeValueInfo('ids', DataType.INT64, ['b', 's']),
    makeValueInfo('past', DataType.FLOAT, ['b', 2, 'p', 4]),
  ];
  const outputs = [makeValueInfo('logits', DataType.FLOAT, ['b', 's', 9])];
  const build = (change?: (graph: Graph) => void) => {
    const model = Model.create({ producer: 'test', irVersion: 8, opsets: { '': 18 } });
    model.graph.inputs = [...inputs];
    model.graph.outputs = [...outputs];
    change?.(model.graph);
    return model;
  };

  it('finds none between equal interfaces', () => {
    expect(interfaceDifferences(build(), build())).toEqual([]);
  });

  it.each<[string, RegExp, (graph: Graph) => void]>([
    ['a missing input', /input "past" is missing/, (g) => g.inputs.pop()],
    [
      'a new output',
      /output "more" is new/,
      (g) => g.outputs.push(makeValueInfo('more', DataType.FLOAT, [])),
    ],
    ['another order', /stands at another place/, (g) => g.inputs.reverse()],
    [
      'another type',
      /FLOAT16/,
      (g) => (g.outputs = [makeValueInfo('logits', DataType.FLOAT16, ['b', 's', 9])]),
    ],
    [
      'another size',
      /\[b, s, 8\]/,
      (g) => (g.outputs = [makeValueInfo('logits', DataType.FLOAT, ['b', 's', 8])]),
    ],
    [
      'a renamed dimension',
      /\[b, t, 9\]/,
      (g) => (g.outputs = [makeValueInfo('logits', DataType.FLOAT, ['b', 't', 9])]),
    ],
  ])('names %s', (_, message, change) => {
    expect(interfaceDifferences(build(), build(change)).join('\n')).toMatch(message);
  });

  it('takes no notice of weights that old models list among their inputs', () => {
    const listed = build((graph) => {
      graph.inputs = [...graph.inputs, makeValueInfo('w', DataType.FLOAT, [1])];
      graph.addInitializer(Tensor.create('w', DataType.FLOAT, [1], Float32Array.of(1)));
    });
    expect(interfaceDifferences(build(), listed)).toEqual([]);
  });
});
