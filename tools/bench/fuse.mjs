// @ts-check
/**
 * What fused operators gain on this machine: a llama of SmolLM2-135M's shape with made-up weights, in the plain operators
 * that Optimum exports, beside what `fuse` makes of it; prefill and decode, interleaved in one run. A model of your own
 * in its place: give its folder.
 *
 *   node tools/bench/fuse.mjs [model folder] [--layers N] [--rounds N] [--prompt-tokens N] [--threads N] [--json]
 *   (needs a build)
 */
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import {
  ComputedData,
  DataType,
  fuse,
  locateModel,
  Model,
  makeAttributeTensor,
  makeNode,
  makeValueInfo,
  readModel,
  Tensor,
  writeModel,
} from '@cqil/planner';
import { bench } from '@cqil/runtime-gpu';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    layers: { type: 'string', default: '30' },
    rounds: { type: 'string', default: '9' },
    'prompt-tokens': { type: 'string', default: '128' },
    'decode-tokens': { type: 'string', default: '32' },
    threads: { type: 'string', default: String(Math.max(1, os.availableParallelism())) },
    json: { type: 'boolean', default: false },
  },
});

const SHAPE = {
  hidden: 576,
  heads: 9,
  kvHeads: 3,
  headSize: 64,
  ffn: 1536,
  vocabulary: 49152,
  theta: 100000,
};

/** @type {{ name: string, options: import('@cqil/planner').FuseOptions }[]} */
const forms = [
  { name: 'fused', options: {} },
  { name: 'fused, unpadded', options: { padding: 'none' } },
  { name: 'fused, not packed', options: { without: ['pack-qkv', 'pack-gate-up'] } },
];

const scratch = await mkdtemp(path.join(os.tmpdir(), 'cqil-fuse-'));
try {
  const [folder] = positionals;
  const file =
    folder === undefined ? path.join(scratch, 'plain', 'model.onnx') : (await locateModel(folder)).onnxFile;
  if (folder === undefined)
    await writeModel(plainLlama(Number(values.layers)), file, { external: { location: 'model.onnx_data' } });
  const source = await readModel(file);
  const models = [{ name: 'plain', file, nodes: source.graph.nodes.length, fuseMs: 0 }];
  for (const [index, { name, options }] of forms.entries()) {
    const started = performance.now();
    const { model } = await fuse(source, options);
    const fuseMs = performance.now() - started;
    const to = path.join(scratch, String(index), 'model.onnx');
    await writeModel(model, to, { external: { location: 'model.onnx_data' } });
    models.push({ name, file: to, nodes: model.graph.nodes.length, fuseMs });
    console.error(`${name}: ${model.graph.nodes.length} nodes, in ${Math.round(fuseMs)} ms`);
  }
  const result = await bench(models, {
    repeats: Number(values.rounds),
    promptTokens: Number(values['prompt-tokens']),
    decodeTokens: Number(values['decode-tokens']),
    session: { threads: Number(values.threads) },
    onProgress: ({ phase, done, total }) => console.error(`${phase} ${done}/${total}`),
  });
  if (values.json) console.log(JSON.stringify(result, undefined, 2));
  else {
    console.log('model                      nodes   prefill ms   speed-up   decode ms   speed-up');
    for (const [index, { name, prefillMs, decodeMs, prefillRatio, decodeRatio }] of result.models.entries()) {
      const nodes = String(models[index]?.nodes ?? 0).padStart(6);
      const column = (/** @type {number} */ value, /** @type {number} */ width, digits = 1) =>
        value.toFixed(digits).padStart(width);
      console.log(
        `${name.padEnd(26)}${nodes}${column(prefillMs.median, 13)}${column(1 / prefillRatio.median, 11, 2)}${column(decodeMs.median, 12)}${column(1 / decodeRatio.median, 11, 2)}`,
      );
    }
    console.log(`load average ${result.load.map((value) => value.toFixed(1)).join(' before, ')} after`);
  }
} finally {
  await rm(scratch, { recursive: true, force: true });
}

/**
 * A llama as Optimum 1.x exports it with SDPA attention: shapes computed in the graph, repeated key and value heads,
 * RMSNorm in six operators, one boolean mask for all layers.
 *
 * @param {number} layers
 */
function plainLlama(layers) {
  const { hidden, heads, kvHeads, headSize, ffn, vocabulary, theta } = SHAPE;
  const model = Model.create({ producer: 'cqil-bench', irVersion: 8, opsets: { '': 18 } });
  const { graph } = model;
  let seed = 1;
  let count = 0;

  /** @param {string} name @param {readonly number[]} dims @param {number} scale */
  const weight = (name, dims, scale, offset = 0) => {
    const length = dims.reduce((a, b) => a * b, 1);
    let state = seed++;
    const data = new ComputedData(length * 4, () => {
      const numbers = new Float32Array(length);
      for (let i = 0; i < length; i++) {
        state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
        numbers[i] = offset + (state / 2 ** 31 - 1) * scale;
      }
      return new Uint8Array(numbers.buffer);
    });
    return graph.addInitializer(Tensor.create(name, DataType.FLOAT, dims, data));
  };
  /** @param {string} opType @param {readonly string[]} inputs @param {Record<string, import('@cqil/planner').AttributeValue>} attributes */
  const node = (opType, inputs, attributes = {}, output = '') => {
    const name = `/n${count++}/${opType}`;
    const to = output === '' ? `${name}_output_0` : output;
    graph.addNode(makeNode(opType, inputs, [to], { name, attributes }));
    return to;
  };
  /** @param {number | readonly number[]} value */
  const ints = (value) => {
    const list = typeof value === 'number' ? [value] : value;
    const tensor = makeAttributeTensor(
      '',
      DataType.INT64,
      typeof value === 'number' ? [] : [list.length],
      BigInt64Array.from(list, BigInt),
    );
    return node('Constant', [], { value: { tensor } });
  };
  /** @param {number} value */
  const float = (value) =>
    node('Constant', [], {
      value: { tensor: makeAttributeTensor('', DataType.FLOAT, [], Float32Array.of(value)) },
    });
  /** @param {string} value @param {number} axis */
  const dim = (value, axis) => node('Gather', [node('Shape', [value]), ints(axis)], { axis: { int: 0 } });
  /** @param {string} value @param {readonly number[]} axes */
  const unsqueeze = (value, axes) => axes.reduce((at, axis) => node('Unsqueeze', [at, ints([axis])]), value);
  /** @param {readonly string[]} dims */
  const shape = (dims) => node('Concat', dims, { axis: { int: 0 } });
  /** @param {string} value */
  const as1d = (value) => unsqueeze(value, [0]);
  const float32 = { to: { int: DataType.FLOAT } };

  graph.inputs.push(
    makeValueInfo('input_ids', DataType.INT64, ['batch_size', 'sequence_length']),
    makeValueInfo('attention_mask', DataType.INT64, ['batch_size', 'total_sequence_length']),
    makeValueInfo('position_ids', DataType.INT64, ['batch_size', 'sequence_length']),
  );
  graph.outputs.push(makeValueInfo('logits', DataType.FLOAT, ['batch_size', 'sequence_length', vocabulary]));
  for (let i = 0; i < layers; i++) {
    for (const kind of ['key', 'value']) {
      graph.inputs.push(
        makeValueInfo(`past_key_values.${i}.${kind}`, DataType.FLOAT, [
          'batch_size',
          kvHeads,
          'past_sequence_length',
          headSize,
        ]),
      );
      graph.outputs.push(
        makeValueInfo(`present.${i}.${kind}`, DataType.FLOAT, [
          'batch_size',
          kvHeads,
          'total_sequence_length',
          headSize,
        ]),
      );
    }
  }

  const embedding = weight('model.embed_tokens.weight', [vocabulary, hidden], 1);
  let x = node('Gather', [embedding, 'input_ids']);
  // The mask: causal and not hidden by attention_mask, [batch, 1, seq, total].
  const past = dim('past_key_values.0.key', 2);
  const seq = dim(x, 1);
  const total = node('Add', [past, seq]);
  const queries = unsqueeze(node('Range', [past, total, ints(1)]), [0, 1, 3]);
  const keys = unsqueeze(node('Range', [ints(0), total, ints(1)]), [0, 1, 2]);
  const causal = node('LessOrEqual', [keys, queries]);
  const tokens = node('Unsqueeze', [
    node('Cast', ['attention_mask'], { to: { int: DataType.BOOL } }),
    ints([1, 2]),
  ]);
  const visible = node('And', [causal, tokens]);
  // Cosines and sines.
  const frequencies = Float32Array.from({ length: headSize / 2 }, (_, i) => theta ** ((-2 * i) / headSize));
  const inverse = node('Constant', [], {
    value: { tensor: makeAttributeTensor('', DataType.FLOAT, [1, headSize / 2, 1], frequencies) },
  });
  const wide = node('Expand', [inverse, shape([as1d(dim('position_ids', 0)), ints([1]), ints([1])])]);
  const places = node('Cast', [unsqueeze('position_ids', [1])], float32);
  const angles = node('Transpose', [node('MatMul', [wide, places])], { perm: { ints: [0, 2, 1] } });
  const both = node('Concat', [angles, angles], { axis: { int: -1 } });
  const cos = node('Mul', [node('Cos', [both]), float(1)]);
  const sin = node('Mul', [node('Sin', [both]), float(1)]);

  /** @param {string} value @param {string} name */
  const norm = (value, name) => {
    const cast = node('Cast', [value], float32);
    const mean = node('ReduceMean', [node('Pow', [cast, float(2)]), ints([-1])], { keepdims: { int: 1 } });
    const root = node('Sqrt', [node('Add', [mean, float(1e-5)])]);
    const normed = node('Mul', [cast, node('Div', [float(1), root])]);
    return node('Mul', [weight(`${name}.weight`, [hidden], 0.2, 1), node('Cast', [normed], float32)]);
  };
  /** @param {string} value @param {string} normed */
  const split = (value, normed) => {
    const dims = shape([as1d(dim(normed, 0)), as1d(dim(normed, 1)), ints([-1]), ints([headSize])]);
    return node('Transpose', [node('Reshape', [value, dims])], { perm: { ints: [0, 2, 1, 3] } });
  };
  /** @param {string} value */
  const rotate = (value) => {
    const half = unsqueeze(node('Div', [dim(value, 3), ints(2)]), [0]);
    const left = node('Slice', [value, ints([0]), half, ints([3]), ints([1])]);
    const right = node('Slice', [value, half, ints([Number.MAX_SAFE_INTEGER]), ints([3]), ints([1])]);
    const turned = node('Concat', [node('Neg', [right]), left], { axis: { int: -1 } });
    return node('Add', [
      node('Mul', [value, unsqueeze(cos, [1])]),
      node('Mul', [turned, unsqueeze(sin, [1])]),
    ]);
  };
  /** @param {string} value */
  const repeat = (value) => {
    const [b, h, t, d] = [0, 1, 2, 3].map((axis) => dim(value, axis));
    const target = shape([
      as1d(b ?? ''),
      as1d(h ?? ''),
      ints([heads / kvHeads]),
      as1d(t ?? ''),
      as1d(d ?? ''),
    ]);
    const expanded = node('Expand', [unsqueeze(value, [2]), target]);
    return node('Reshape', [
      expanded,
      shape([
        as1d(b ?? ''),
        as1d(node('Mul', [h ?? '', ints(heads / kvHeads)])),
        as1d(t ?? ''),
        as1d(d ?? ''),
      ]),
    ]);
  };

  for (let i = 0; i < layers; i++) {
    const prefix = `model.layers.${i}`;
    const normed = norm(x, `${prefix}.input_layernorm`);
    const product = (
      /** @type {string} */ from,
      /** @type {string} */ name,
      /** @type {number} */ rows,
      /** @type {number} */ columns,
    ) => node('MatMul', [from, weight(`${prefix}.${name}`, [rows, columns], 1 / Math.sqrt(rows))]);
    const q = rotate(split(product(normed, 'q_proj', hidden, heads * headSize), normed));
    const k = rotate(split(product(normed, 'k_proj', hidden, kvHeads * headSize), normed));
    const v = split(product(normed, 'v_proj', hidden, kvHeads * headSize), normed);
    const allKeys = node(
      'Concat',
      [`past_key_values.${i}.key`, k],
      { axis: { int: -2 } },
      `present.${i}.key`,
    );
    const allValues = node(
      'Concat',
      [`past_key_values.${i}.value`, v],
      { axis: { int: -2 } },
      `present.${i}.value`,
    );
    const [repeatedKeys, repeatedValues] = [repeat(allKeys), repeat(allValues)];
    const scale = headSize ** -0.25;
    const turned = node('Mul', [
      node('Transpose', [repeatedKeys], { perm: { ints: [0, 1, 3, 2] } }),
      float(scale),
    ]);
    const scores = node('MatMul', [node('Mul', [q, float(scale)]), turned]);
    const shown = node('Slice', [
      visible,
      ints([0]),
      unsqueeze(dim(repeatedKeys, 2), [0]),
      ints([3]),
      ints([1]),
    ]);
    const masked = node('Add', [scores, node('Where', [shown, float(0), float(Number.NEGATIVE_INFINITY)])]);
    const softmax = node('Softmax', [masked], { axis: { int: -1 } });
    const safe = node('Where', [node('IsNaN', [softmax]), float(0), softmax]);
    const joined = node('Transpose', [node('MatMul', [safe, repeatedValues])], {
      perm: { ints: [0, 2, 1, 3] },
    });
    const rows = node('Reshape', [joined, shape([as1d(dim(normed, 0)), as1d(dim(normed, 1)), ints([-1])])]);
    x = node('Add', [x, product(rows, 'o_proj', heads * headSize, hidden)]);
    const second = norm(x, `${prefix}.post_attention_layernorm`);
    const gate = product(second, 'gate_proj', hidden, ffn);
    const activated = node('Mul', [gate, node('Sigmoid', [gate])]);
    const inner = node('Mul', [activated, product(second, 'up_proj', hidden, ffn)]);
    x = node('Add', [x, product(inner, 'down_proj', ffn, hidden)]);
  }
  const last = norm(x, 'model.norm');
  node('MatMul', [last, node('Transpose', [embedding], { perm: { ints: [1, 0] } })], {}, 'logits');
  return model;
}
