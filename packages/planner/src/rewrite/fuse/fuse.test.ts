import { mkdtemp, readFile, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { DecoderSession } from '@cqil/runtime-gpu';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  type AttributeValue,
  DataType,
  floatAttribute,
  intAttribute,
  type Model,
  makeAttributeTensor,
  makeNode,
  type Node,
  readModel,
  writeModel,
} from '../../onnx/index.js';
import { quantisedCopy } from './fuse.js';
import { checkFused, type FuseOptions, fuse } from './index.js';

const testdata = path.resolve(import.meta.dirname, '../../../../../testdata');
const llama = () => readModel(path.join(testdata, 'optimum/llama/onnx/model.onnx'));
const gpt2 = () => readModel(path.join(testdata, 'optimum/gpt2/onnx/model.onnx'));

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(path.join(os.tmpdir(), 'cqil-fuse-'));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

function attentions(model: Model): Node[] {
  return model.graph.nodes.filter(({ opType }) => opType === 'GroupQueryAttention');
}

async function refusals(model: Model, options: FuseOptions = {}) {
  const { passes } = await fuse(model, options);
  return (name: string) => passes.find((pass) => pass.name === name) ?? { applied: 0, refused: [] };
}

/** A copy with something put between a node's output and those who read it. */
function behind(
  model: Model,
  node: (candidate: Node) => boolean,
  change: (value: string, at: number) => Node[],
): Model {
  const copy = model.clone();
  const { graph } = copy;
  let at = 0;
  graph.nodes = graph.nodes.flatMap((candidate) => {
    if (!node(candidate)) return [candidate];
    const [output] = candidate.output as [string];
    candidate.output = [`${output}.before`];
    const added = change(`${output}.before`, at++);
    const last = added.at(-1) as Node;
    last.output = [output];
    return [candidate, ...added];
  });
  expect(at).toBeGreaterThan(0);
  return copy;
}

function constant(name: string, type: number, dims: readonly number[], data: ArrayBufferView): Node {
  const attributes: Record<string, AttributeValue> = {
    value: { tensor: makeAttributeTensor(name, type, dims, data) },
  };
  return makeNode('Constant', [], [name], { name: `${name}/Constant`, attributes });
}

const isScore = ({ name }: Node) => name.endsWith('/self_attn/MatMul');

/** `Op(value, constant)` */
function withConstant(
  opType: string,
  value: string,
  data: Float32Array,
  dims: readonly number[] = [],
): Node[] {
  const name = `${value}/${opType}/constant`;
  return [
    constant(name, DataType.FLOAT, dims, data),
    makeNode(opType, [value, name], [`${value}/${opType}`], { name: `${value}/${opType}` }),
  ];
}

describe('fuse', () => {
  it('changes nothing of the model that it is given', async () => {
    const model = await llama();
    const before = [
      ...model.graph.nodes.map((node) => ({ ...node, input: [...node.input], output: [...node.output] })),
    ];
    const weights = [...model.graph.initializers.keys()];
    await fuse(model, { bits: 4 });
    expect(model.graph.nodes.map((node) => ({ ...node }))).toEqual(before);
    expect([...model.graph.initializers.keys()]).toEqual(weights);
    expect(model.opsets.has('com.microsoft')).toBe(false);
  });

  it('gives the same bytes each time', async () => {
    const files = await Promise.all(
      [0, 1].map(async (run) => {
        const { model } = await fuse(await llama(), { bits: 8 });
        const file = path.join(dir, `same-${run}`, 'model.onnx');
        await writeModel(model, file);
        return readFile(file);
      }),
    );
    expect(files[0]?.equals(files[1] as Buffer)).toBe(true);
  });

  it('has nothing to do in what it made, but says so', async () => {
    const { model } = await fuse(await llama());
    const again = await fuse(model);
    expect(again.model.graph.nodes).toHaveLength(model.graph.nodes.length);
    expect(again.passes.filter(({ applied }) => applied > 0)).toEqual([]);
    const attention = again.passes.find(({ name }) => name === 'attention');
    expect(attention?.refused[0]).toMatchObject({
      expected: 'attention in plain operators',
      found: 'a fused operator',
    });
  });

  it.each([
    'casts',
    'rms-norm',
    'products',
    'attention',
    'rotary',
    'pack-qkv',
    'pack-gate-up',
    'skip-norm',
  ] as const)('works without %s', async (name) => {
    const model = await (name === 'products' ? gpt2() : llama());
    const { model: fused, passes } = await fuse(model, { without: [name] });
    expect(passes.find((pass) => pass.name === name)?.applied ?? 0).toBe(0);
    expect(passes.some(({ applied }) => applied > 0)).toBe(true);
    expect(await checkFused(model, fused)).toMatchObject({ ok: true });
  });

  it('keeps no weight that nothing reads', async () => {
    const { model } = await fuse(await llama(), { bits: 4 });
    const read = new Set(model.graph.nodes.flatMap(({ input }) => input));
    expect([...model.graph.initializers.keys()].filter((name) => !read.has(name))).toEqual([]);
  });

  it('stops when it is told to', async () => {
    const reason = new Error('enough');
    await expect(fuse(await llama(), { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  });
});

describe('attention', () => {
  it('has the numbers of the model', async () => {
    const { model } = await fuse(await llama());
    for (const node of attentions(model)) {
      expect(
        ['num_heads', 'kv_num_heads', 'do_rotary', 'rotary_interleaved'].map((name) =>
          intAttribute(node, name),
        ),
      ).toEqual([4, 2, 1, 0]);
      expect(floatAttribute(node, 'scale')).toBe(0.25);
    }
    expect(model.graph.initializers.get('cos_cache')?.dims).toEqual([8192, 8]);
    expect([...model.graph.initializers.keys()].filter((name) => name.startsWith('cos_cache'))).toHaveLength(
      1,
    );
  });

  it('writes tables for as many positions as are asked for, and ONNX Runtime goes no further', async () => {
    const source = await llama();
    const { model, notes } = await fuse(source, { maxPositions: 16 });
    expect(notes.join()).toContain('16 positions');
    const file = path.join(dir, 'short', 'model.onnx');
    await writeModel(model, file);
    const decoder = await DecoderSession.open(file);
    try {
      await expect(
        decoder.forward({ inputIds: [Array.from({ length: 16 }, (_, i) => i)] }),
      ).resolves.toBeDefined();
      await expect(decoder.forward({ inputIds: [Array.from({ length: 17 }, (_, i) => i)] })).rejects.toThrow(
        'cos_cache',
      );
    } finally {
      await decoder.dispose();
    }
  });

  describe('for unpadded sequences', () => {
    it("has the builder's form and is right for them", async () => {
      const source = await llama();
      const { model } = await fuse(source, { padding: 'none' });
      const [node] = attentions(model);
      expect(node?.input).toHaveLength(9);
      const lengths = model.graph.nodes.find(({ output }) => output[0] === node?.input[5]);
      expect(lengths?.opType).toBe('Cast');
      expect(model.graph.nodes.filter(({ opType }) => opType === 'ReduceSum')).toHaveLength(1);
      expect(await checkFused(source, model, { padding: 'none' })).toMatchObject({ ok: true });
    });

    it('limits attention to windows as masks do', async () => {
      const source = await readModel(path.join(testdata, 'families/gemma3_text/optimum/onnx/model.onnx'));
      const { model } = await fuse(source, { padding: 'none' });
      const windows = attentions(model).map((node) => intAttribute(node, 'local_window_size'));
      expect(windows.filter((window) => window === undefined).length).toBeGreaterThan(0);
      const [window] = windows.filter((size) => size !== undefined);
      // Prompts of the check are longer.
      expect(window).toBeLessThan(12);
      expect(attentions(model).every(({ input }) => input.length <= 9)).toBe(true);
      expect((await checkFused(source, model, { padding: 'none' })).logits).toBeLessThan(1e-4);
      for (const node of attentions(model)) {
        for (const attribute of node.attribute) if (attribute.name === 'local_window_size') attribute.i += 1n;
      }
      expect((await checkFused(source, model, { padding: 'none' })).logits).toBeGreaterThan(1e-3);
    });

    it('is wrong for padding on the left, which the other form is right for', async () => {
      const source = await llama();
      const { model: none } = await fuse(source, { padding: 'none' });
      const { model: left } = await fuse(source);
      const wrong = await checkFused(source, none);
      expect(wrong.ok).toBe(false);
      expect(wrong.detail).toMatch(/padded: logits \d.*\(limit/);
      expect(wrong.logits).toBeGreaterThan(0.01);
      expect((await checkFused(source, left)).logits).toBeLessThan(1e-4);
    });
  });

  it('takes several tokens behind a cache', async () => {
    for (const [folder, padding] of [
      ['optimum/llama', 'left'],
      ['families/gemma3_text/optimum', 'left'],
      ['families/gemma3_text/optimum', 'none'],
    ] as const) {
      const file = path.join(testdata, folder, 'onnx/model.onnx');
      const { model } = await fuse(await readModel(file), { padding });
      const fused = path.join(dir, 'chunks', 'model.onnx');
      await writeModel(model, fused);
      const ids = Array.from({ length: 14 }, (_, i) => (i * 37 + 5) % 256);
      const logits: Float32Array[] = [];
      for (const each of [file, fused]) {
        const decoder = await DecoderSession.open(each);
        const { cache } = await decoder.forward({ inputIds: [ids.slice(0, 5)] });
        const next = await decoder.forward({ inputIds: [ids.slice(5)], cache });
        logits.push(Float32Array.from(next.logits.data));
        await decoder.dispose();
      }
      const [before, after] = logits as [Float32Array, Float32Array];
      expect(Math.max(...before.map((value, i) => Math.abs(value - (after[i] as number))))).toBeLessThan(
        1e-4,
      );
    }
  });

  it('takes soft caps of scores', async () => {
    const capped = behind(await llama(), isScore, (value) => {
      const cap = Float32Array.of(3);
      const [c1, divided] = withConstant('Div', value, cap) as [Node, Node];
      const tangent = makeNode('Tanh', [divided.output[0] as string], [`${value}/Tanh`], {
        name: `${value}/Tanh`,
      });
      return [c1, divided, tangent, ...withConstant('Mul', `${value}/Tanh`, cap)];
    });
    const { model, passes } = await fuse(capped);
    expect(passes.find(({ name }) => name === 'attention')?.applied).toBe(6);
    expect(attentions(model).map((node) => floatAttribute(node, 'softcap'))).toEqual([3, 3, 3, 3, 3, 3]);
    expect((await checkFused(capped, model)).logits).toBeLessThan(1e-4);
  });

  it('leaves rotations whose table depends on the length, and fuses the rest', async () => {
    const stretched = behind(
      await llama(),
      ({ opType }) => opType === 'Cos',
      (value) => {
        const length = makeNode('Shape', ['attention_mask'], [`${value}/shape`], { name: `${value}/shape` });
        const sum = makeNode('ReduceMax', [`${value}/shape`], [`${value}/max`], {
          name: `${value}/max`,
          attributes: { keepdims: { int: 0 } },
        });
        const cast = makeNode('Cast', [`${value}/max`], [`${value}/float`], {
          name: `${value}/float`,
          attributes: { to: { int: DataType.FLOAT } },
        });
        const [c, small] = withConstant('Mul', `${value}/float`, Float32Array.of(0.01)) as [Node, Node];
        return [
          length,
          sum,
          cast,
          c,
          small,
          makeNode('Mul', [value, small.output[0] as string], [''], { name: `${value}/scaled` }),
        ];
      },
    );
    const { model, passes } = await fuse(stretched);
    expect(passes.find(({ name }) => name === 'attention')?.applied).toBe(6);
    const rotary = passes.find(({ name }) => name === 'rotary');
    expect(rotary?.applied).toBe(0);
    expect(rotary?.refused).toHaveLength(6);
    expect(rotary?.refused[0]).toMatchObject({
      expected: 'a rotation that depends on positions alone',
      found: 'one that depends on the length, too',
    });
    expect((await checkFused(stretched, model)).logits).toBeLessThan(1e-4);
  });

  const addToScores = (dims: readonly number[], data: Float32Array) => (value: string) =>
    withConstant('Add', value, data, dims);
  const scaleScores = (dims: readonly number[], data: Float32Array) => (value: string) =>
    withConstant('Mul', value, data, dims);

  it.each<[string, (value: string) => Node[], string]>([
    [
      'a bias of heads',
      addToScores([1, 4, 1, 1], Float32Array.of(0, 0.5, 0, 0)),
      'a causal mask of 0 and large negative numbers',
    ],
    [
      'a scale of heads',
      scaleScores([1, 4, 1, 1], Float32Array.of(1, 2, 1, 1)),
      'what softmax(scale · q · k + mask) · v gives',
    ],
    [
      'a power of the scores',
      (value) => [makeNode('Mul', [value, value], [''], { name: `${value}/square` })],
      'one operand that depends on the keys',
    ],
    [
      'a sigmoid of the scores',
      (value) => [makeNode('Sigmoid', [value], [''], { name: `${value}/sigmoid` })],
      'scores with a mask of 0 and large negative numbers',
    ],
  ])('leaves attention with %s as it is', async (_, change, expected) => {
    const attention = (await refusals(behind(await llama(), isScore, change)))('attention');
    expect(attention.applied).toBe(0);
    expect(attention.refused).toHaveLength(6);
    for (const refusal of attention.refused) expect(refusal).toMatchObject({ expected });
  });

  it('leaves attention that looks ahead as it is', async () => {
    const model = (await llama()).clone();
    for (const node of model.graph.nodes) if (node.opType === 'LessOrEqual') node.opType = 'GreaterOrEqual';
    const attention = (await refusals(model))('attention');
    expect(attention.applied).toBe(0);
    expect(attention.refused).toHaveLength(6);
  });

  it('leaves attention whose keys and values are repeated in another order', async () => {
    const model = (await llama()).clone();
    // [batch, kv, repeated, …] becomes [batch, repeated, kv, …]: query heads 0 and 2 then share keys instead of 0 and 1.
    const swapped = behind(
      model,
      ({ name, opType }) => opType === 'Expand' && name.includes('/self_attn/'),
      (value) => [
        makeNode('Transpose', [value], [''], {
          name: `${value}/swap`,
          attributes: { perm: { ints: [0, 2, 1, 3, 4] } },
        }),
      ],
    );
    const attention = (await refusals(swapped))('attention');
    expect(attention.applied).toBe(0);
    expect(attention.refused[0]?.expected).toBe('products of queries with the keys of their group');
  });
});

describe('norms', () => {
  it('finds a LayerNorm in plain operators', async () => {
    const source = await gpt2();
    const plain = source.clone();
    plain.graph.nodes = plain.graph.nodes.flatMap((node) =>
      node.opType === 'LayerNormalization' ? written(node) : [node],
    );
    expect(plain.graph.nodes.some(({ opType }) => opType === 'LayerNormalization')).toBe(false);
    const { model, passes } = await fuse(plain);
    expect(passes.find(({ name }) => name === 'layer-norm')).toMatchObject({ applied: 13, refused: [] });
    expect(passes.find(({ name }) => name === 'rms-norm')).toMatchObject({ applied: 0, refused: [] });
    expect(passes.find(({ name }) => name === 'skip-norm')).toMatchObject({ applied: 12 });
    expect((await checkFused(source, model)).logits).toBeLessThan(1e-4);
  });

  it('leaves norms over other axes, and without a weight', async () => {
    const other = (await llama()).clone();
    for (const node of other.graph.nodes) {
      if (!node.name.endsWith('layers.2/input_layernorm/Mul_1')) continue;
      // The weight no longer has one axis.
      node.input = node.input.map((input) => (input.endsWith('weight') ? 'onnx::MatMul_1880' : input));
    }
    const report = (await refusals(other))('rms-norm');
    expect(report.applied).toBe(12);
    expect(report.refused).toEqual([
      {
        node: 'ReduceMean "/model/layers.2/input_layernorm/ReduceMean"',
        expected: 'a product with a weight of one axis behind the norm',
        found: 'Mul',
      },
    ]);
  });
});

/** A LayerNormalization as operator set 13 writes it. */
function written({ name, input: [x = '', weight = '', bias = ''], output }: Node): Node[] {
  const value = (part: string) => `${name}/${part}_value`;
  const node = (
    opType: string,
    inputs: string[],
    part: string,
    attributes: Record<string, AttributeValue> = {},
  ) =>
    makeNode(opType, inputs, [part === 'last' ? (output[0] as string) : value(part)], {
      name: `${name}/${part}`,
      attributes,
    });
  const axes = constant(value('axes'), DataType.INT64, [1], BigInt64Array.of(-1n));
  return [
    axes,
    constant(value('two'), DataType.FLOAT, [], Float32Array.of(2)),
    constant(value('epsilon'), DataType.FLOAT, [], Float32Array.of(1e-5)),
    node('ReduceMean', [x, value('axes')], 'mean'),
    node('Sub', [x, value('mean')], 'difference'),
    node('Pow', [value('difference'), value('two')], 'square'),
    node('ReduceMean', [value('square'), value('axes')], 'variance'),
    node('Add', [value('variance'), value('epsilon')], 'sum'),
    node('Sqrt', [value('sum')], 'root'),
    node('Div', [value('difference'), value('root')], 'normed'),
    node('Mul', [value('normed'), weight], 'weighted'),
    node('Add', [value('weighted'), bias], 'last'),
  ];
}

describe('quantising', () => {
  it.each([
    ['llama, 4 bits', llama, 4, 25],
    ['llama, 8 bits', llama, 8, 25],
    ['gpt2, 4 bits', gpt2, 4, 25],
  ] as const)('%s', async (_, read, bits, products) => {
    const source = await read();
    const { model: float } = await fuse(source);
    const { model, passes } = await fuse(source, { bits });
    const blocks = model.graph.nodes.filter(({ opType }) => opType === 'MatMulNBits');
    expect(passes.at(-1)).toMatchObject({ name: 'quantise', applied: products, refused: [] });
    expect(blocks).toHaveLength(products);
    expect(blocks.every((node) => intAttribute(node, 'bits') === bits)).toBe(true);
    // The graph with the numbers that the blocks stand for, multiplied in floating point.
    const { model: meant } = await quantisedCopy(float, { bits }, 'values');
    expect((await checkFused(meant, model)).logits).toBeLessThan(1e-3);
    // Which are not the original's.
    expect((await checkFused(source, meant)).logits).toBeGreaterThan(1e-3);
  });

  it('leaves matrices that do not divide into blocks', async () => {
    const { passes } = await fuse(await llama(), { bits: 4, blockSize: 64 });
    const report = passes.find(({ name }) => name === 'quantise');
    // down has 160 inputs.
    expect(report?.refused).toHaveLength(6);
    expect(report?.refused[0]).toMatchObject({ expected: 'a multiple of 64 inputs', found: '160' });
    expect(report?.applied).toBe(19);
  });

  it('packs products that are in blocks already', async () => {
    const source = await readModel(path.join(testdata, 'optimum/llama/onnx/model.onnx'));
    const { model: apart } = await fuse(source, { without: ['pack-qkv', 'pack-gate-up'], bits: 4 });
    const { model: packed, passes } = await fuse(apart);
    expect(passes.find(({ name }) => name === 'pack-qkv')).toMatchObject({ applied: 6, refused: [] });
    expect(passes.find(({ name }) => name === 'pack-gate-up')).toMatchObject({ applied: 6, refused: [] });
    expect((await checkFused(apart, packed)).logits).toBeLessThan(1e-5);
  });
});
