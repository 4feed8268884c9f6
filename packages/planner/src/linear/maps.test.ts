import { parsePlan } from '@cqil/core';
import { describe, expect, it } from 'vitest';
import { analyze, streamValues } from '../anatomy/index.js';
import { DataType, Model, makeNode, makeValueInfo, readModel, Tensor } from '../onnx/index.js';
import { rewriteBranches } from '../rewrite/index.js';
import { type LinearMaps, linearMaps, type MapRole } from './index.js';
import { MapLocator } from './locate.js';
import { DECODERS, testdata } from './testing/fixtures.js';

/** By role, the sizes of a layer's maps, `+b` where there is a bias; in brackets why there is none. */
const LAYERS: Readonly<Record<string, string>> = {
  'optimum/llama/onnx/model.onnx': 'qkv 64x64 64x32 64x32; o 64x64; gate-up 64x160 64x160; down 160x64',
  'optimum/llama/onnx/model_fp16.onnx': 'qkv 64x64 64x32 64x32; o 64x64; gate-up 64x160 64x160; down 160x64',
  'optimum/llama/onnx/model_quantized.onnx':
    'qkv 64x64 64x32 64x32; o 64x64; gate-up 64x160 64x160; down 160x64',
  'optimum/gpt2/onnx/model.onnx': 'qkv 64x192+b; o 64x64+b; gate-up 64x256+b; down 256x64+b',
  'optimum/qwen2/onnx/model.onnx': 'qkv 64x64+b 64x32+b 64x32+b; o 64x64; gate-up 64x160 64x160; down 160x64',
  'optimum/phi3/onnx/model.onnx': 'qkv 64x128; o 64x64; gate-up 64x320; down 160x64',
  'genai-fp32/llama/model.onnx': 'qkv 64x128; o 64x64; gate-up 64x160 64x160; down 160x64',
  'genai-fp32/qwen2/model.onnx': 'qkv 64x128+b; o 64x64; gate-up 64x160 64x160; down 160x64',
  'genai-int4/llama/model.onnx': 'qkv 64x128; o 64x64; gate-up 64x160 64x160; down 160x64',
  'families/bloom/optimum/onnx/model.onnx': 'qkv 32x96+b; o 32x32+b; gate-up 32x128+b; down 128x32+b',
  'families/gemma2/genai-fp32/model.onnx':
    'qkv 64x128; o (a norm stands behind the attention); gate-up 64x96 64x96; down (a norm stands behind the FFN)',
  'families/gemma3_text/optimum/onnx/model.onnx':
    'qkv 32x32 32x16 32x16; o (a norm stands behind the attention); gate-up 32x48 32x48; ' +
    'down (a norm stands behind the FFN)',
  // The biases of the activation and of the sum with the stream belong to the nodes that follow.
  'families/gpt2/fused/model.onnx': 'qkv 32x96+b; o 32x32+b; gate-up 32x48; down 48x32',
  'families/gpt_neox/optimum/onnx/model.onnx': 'qkv 32x96+b; o 32x32+b; gate-up 32x48+b; down 48x32+b',
  'families/granite/optimum/onnx/model.onnx':
    'qkv 32x32 32x16 32x16; o 32x32; gate-up 32x48 32x48; down 48x32',
  'families/olmo2/optimum/onnx/model.onnx':
    'qkv 32x32 32x16 32x16; o (a norm stands behind the attention); gate-up 32x48 32x48; ' +
    'down (a norm stands behind the FFN)',
  'families/olmo2/optimum/onnx/model_quantized.onnx':
    'qkv 32x32 32x16 32x16; o (a norm stands behind the attention); gate-up 32x48 32x48; ' +
    'down (a norm stands behind the FFN)',
  'families/opt/optimum/onnx/model.onnx':
    'qkv 32x32+b 32x32+b 32x32+b; o 32x32+b; gate-up 32x48+b; down 48x32+b',
  'families/opt/optimum/onnx/model_q4f16.onnx':
    'qkv 32x32+b 32x32+b 32x32+b; o 32x32+b; gate-up 32x48+b; down 48x32+b',
  'families/phi/optimum/onnx/model.onnx':
    'qkv 32x32+b 32x32+b 32x32+b; o 32x32+b; gate-up 32x48+b; down 48x32+b',
  'families/qwen3/genai-int4/model.onnx': 'qkv 64x64 64x32 64x32; o 64x64; gate-up 64x96 64x96; down 96x64',
  'families/qwen3/optimum/onnx/model.onnx': 'qkv 32x32 32x16 32x16; o 32x32; gate-up 32x48 32x48; down 48x32',
};

const ROLES: readonly MapRole[] = ['qkv', 'o', 'gate-up', 'down'];

function describeLayer({ maps, refusals }: LinearMaps, layer: number): string {
  return ROLES.map((role) => {
    const sizes = maps
      .filter((map) => map.layer === layer && map.role === role)
      .map((map) => `${map.inFeatures}x${map.outFeatures}${map.hasBias ? '+b' : ''}`);
    const reasons = refusals
      .filter((entry) => entry.layer === layer && entry.role === role)
      .map(({ refused }) => `(${refused})`);
    return [role, ...sizes, ...reasons].join(' ');
  }).join('; ');
}

describe.each(DECODERS)('%s', (file) => {
  it('has the same maps in every layer, or says why not', async () => {
    const model = await readModel(testdata(file));
    const anatomy = analyze(model);
    const found = linearMaps(model, anatomy);
    for (const { index } of anatomy.layers) {
      if (file.includes('olmo2') && file.includes('quantized') && index === 0) {
        // It reads the codes of the embedding, which no map of numbers begins with.
        expect(describeLayer(found, 0)).toMatch(
          /^qkv \(MatMulInteger ".*q_proj.*" could not be read as a matrix\)/,
        );
        continue;
      }
      expect(describeLayer(found, index)).toBe(LAYERS[file]);
    }
  });

  it('has maps from the value behind the norm, and to what is added to the stream', async () => {
    const model = await readModel(testdata(file));
    const anatomy = analyze(model);
    for (const map of linearMaps(model, anatomy).maps) {
      const { attention, ffn, kind } = anatomy.layers[map.layer]!;
      const branch = map.role === 'qkv' || map.role === 'o' || kind === 'parallel' ? attention! : ffn!;
      if (kind !== 'parallel' && (map.role === 'o' || map.role === 'down')) {
        expect(branch.add.contributions).toContain(map.output);
      }
      // GPT-2 folds batch and sequence before each product.
      const folds = file.includes('gpt2/onnx');
      if (map.role === 'qkv' && branch.normOutput !== undefined && !folds) {
        expect(map.input).toBe(branch.normOutput);
      }
      expect(map.nodes.every((node) => model.graph.nodes.includes(node))).toBe(true);
      expect(map.nodes.at(-1)!.output).toContain(map.output);
    }
  });

  it('keeps its maps when it is rewritten', async () => {
    const model = await readModel(testdata(file));
    const anatomy = analyze(model);
    const plan = parsePlan({
      version: 1,
      layers: anatomy.layers.length,
      groups: [{ layers: [0, 1, 2, 3], bypass: 1 }],
    });
    const { maps } = linearMaps(model, anatomy);
    const locator = new MapLocator(rewriteBranches(model, plan).model);
    const stream = streamValues(anatomy);
    for (const map of maps) {
      if (stream.has(map.input)) {
        // In a group, what reads the stream itself reads the group's input.
        if (map.layer > 0 && map.role === 'qkv') {
          expect(() => locator.locate(map)).toThrow(expect.objectContaining({ code: 'MAP_NOT_FOUND' }));
        }
        continue;
      }
      expect(locator.locate(map)).toMatchObject({
        inFeatures: map.inFeatures,
        outFeatures: map.outFeatures,
        hasBias: map.hasBias,
      });
    }
  });
});

const H = 8;

/** One layer: made-up attention, and an FFN that the test adds; both read the stream without a norm. */
function decoder(ffn: (build: Builder) => string): Model {
  const model = Model.create({ producer: 'test', irVersion: 10, opsets: { '': 21, 'com.microsoft': 1 } });
  const { graph } = model;
  graph.inputs.push(makeValueInfo('ids', DataType.INT64, ['batch', 'seq']));
  graph.inputs.push(makeValueInfo('past', DataType.FLOAT, ['batch', 'past', H]));
  const build = new Builder(model);
  build.node('Embed', ['ids'], 'x');
  build.node('Attention', ['x', 'past'], 'a', ['present']);
  build.node('Add', ['x', 'a'], 'f');
  build.node('Add', ['f', ffn(build)], 'y');
  build.node('Head', ['y'], 'logits');
  graph.outputs.push(makeValueInfo('logits', DataType.FLOAT, ['batch', 'seq', 16]));
  graph.outputs.push(makeValueInfo('present', DataType.FLOAT, ['batch', 'all', H]));
  return model;
}

class Builder {
  constructor(readonly model: Model) {}

  node(op: string, inputs: string[], output: string, more: string[] = []): string {
    const [opType, domain] = op.split('@') as [string, string?];
    const options = { name: `${opType}:${output}`, ...(domain === undefined ? {} : { domain }) };
    this.model.graph.addNode(makeNode(opType, inputs, [output, ...more], options));
    return output;
  }

  weight(name: string, dims: number[]): string {
    const data = new Float32Array(dims.reduce((a, b) => a * b, 1)).fill(0.5);
    return this.model.graph.addInitializer(Tensor.create(name, DataType.FLOAT, dims, data));
  }

  product(input: string, output: string, inFeatures: number, outFeatures: number): string {
    return this.node('MatMul', [input, this.weight(`${output}.w`, [inFeatures, outFeatures])], output);
  }
}

function ffnOf(model: Model): string {
  return describeLayer(linearMaps(model, analyze(model)), 0)
    .split('; ')
    .slice(2)
    .join('; ');
}

describe('linearMaps, in made-up FFNs', () => {
  it('takes in multipliers and casts between the last product and the stream', () => {
    const model = decoder((b) => {
      b.node('Relu', [b.product('f', 'up', H, 20)], 'inner');
      b.node('Mul', [b.product('inner', 'down', 20, H), b.weight('scale', [])], 'scaled');
      return b.node('Add', [b.weight('bias', [H]), 'scaled'], 'm');
    });
    expect(ffnOf(model)).toBe('gate-up 8x20; down 20x8+b');
    const { maps } = linearMaps(model, analyze(model));
    expect(maps.map(({ input, output }) => [input, output])).toEqual([
      ['f', 'up'],
      ['inner', 'm'],
    ]);
  });

  it('takes a multiplier behind a first product for a part of what follows', () => {
    const model = decoder((b) => {
      b.node('Mul', [b.product('f', 'up', H, 20), b.weight('scale', [])], 'scaled');
      return b.product(b.node('Relu', ['scaled'], 'inner'), 'down', 20, H);
    });
    expect(linearMaps(model, analyze(model)).maps.map(({ output }) => output)).toEqual(['up', 'down']);
  });

  it('reads a matrix and its low-rank addition as one map', () => {
    const model = decoder((b) => {
      b.node('Relu', [b.product('f', 'up', H, 20)], 'inner');
      b.product('inner', 'whole', 20, H);
      b.product(b.product('inner', 'low', 20, 2), 'rank', 2, H);
      return b.node('Add', ['whole', 'rank'], 'm');
    });
    expect(ffnOf(model)).toBe('gate-up 8x20; down 20x8');
  });

  it('finds the parts of a sum of several', () => {
    const model = decoder((b) => {
      b.product(b.node('Relu', [b.product('f', 'up1', H, 20)], 'inner1'), 'down1', 20, H);
      b.product(b.node('Tanh', [b.product('f', 'up2', H, 12)], 'inner2'), 'down2', 12, H);
      return b.node('Add', ['down1', 'down2'], 'm');
    });
    expect(ffnOf(model)).toBe('gate-up 8x20 8x12; down 20x8 12x8');
  });

  it.each([
    [
      'something not affine behind the last product',
      (b: Builder) => b.node('Tanh', [b.product('f', 'down', H, H)], 'm'),
      'gate-up 8x8; down (Tanh "Tanh:m" between its last product and the stream is not affine)',
    ],
    [
      'a product of two functions of the input',
      (b: Builder) => b.node('Mul', [b.product('f', 'p', H, H), b.product('f', 'q', H, H)], 'm'),
      'gate-up 8x8 8x8; down (Mul "Mul:m" between its last product and the stream is not affine)',
    ],
    [
      'no product at all',
      (b: Builder) => b.node('Tanh', ['f'], 'm'),
      'gate-up (no product was found in the FFN); ' +
        'down (no product with a weight was found before its sum with the stream)',
    ],
    [
      'a norm behind',
      (b: Builder) => {
        b.product(b.node('Relu', [b.product('f', 'up', H, H)], 'inner'), 'down', H, H);
        return b.node('SimplifiedLayerNormalization', ['down', b.weight('gain', [H])], 'm');
      },
      'gate-up 8x8; down (a norm stands behind the FFN)',
    ],
    [
      'a mixture of experts',
      (b: Builder) => b.node('MoE@com.microsoft', ['f', b.product('f', 'router', H, 4)], 'm'),
      'gate-up (the FFN is a mixture of experts, which begins with no one matrix); ' +
        'down (the FFN is a mixture of experts, which ends in no one matrix)',
    ],
    [
      'an activation in the product',
      (b: Builder) => {
        b.node('FusedGemm@com.microsoft', ['f', b.weight('w', [H, 20])], 'inner');
        return b.product('inner', 'm', 20, H);
      },
      'gate-up (FusedGemm "FusedGemm:inner" computes the activation, too); down 20x8',
    ],
    [
      'features that change places with positions',
      (b: Builder) => {
        b.node('Relu', [b.product('f', 'up', H, H)], 'inner');
        return b.node('Transpose', [b.product('inner', 'down', H, H)], 'm');
      },
      'gate-up 8x8; down (Transpose "Transpose:m" between its last product and the stream is not affine)',
    ],
  ])('refuses %s', (_, ffn, expected) => {
    expect(ffnOf(decoder(ffn))).toBe(expected);
  });

  it('says of a layer without an FFN that it has none', () => {
    const model = decoder((b) => b.product('f', 'm', H, H));
    // Without the FFN's sum the stream ends with the attention's.
    model.graph.nodes = model.graph.nodes.filter((node) => !['m', 'y'].includes(node.output[0]!));
    model.graph.nodes.at(-1)!.input = ['f'];
    expect(ffnOf(model)).toBe('gate-up (the layer has no FFN); down (the layer has no FFN)');
  });
});
