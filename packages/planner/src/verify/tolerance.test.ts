import { describe, expect, it } from 'vitest';
import { intAttribute, readModel } from '../onnx/index.js';
import { toleranceFor } from './parity.js';
import { testdata } from './test/fixtures.js';
import { arithmeticOf, atFullAccuracy } from './tolerance.js';

describe('arithmeticOf', () => {
  it.each([
    ['optimum/llama/onnx/model.onnx', 'float32'],
    ['optimum/llama/onnx/model_fp16.onnx', 'float16'],
    ['optimum/llama/onnx/model_quantized.onnx', 'int8'],
    ['genai-fp32/llama/model.onnx', 'float32'],
    ['genai-int4/llama/model.onnx', 'int4'],
  ] as const)('%s is %s', async (file, arithmetic) => {
    expect(arithmeticOf(await readModel(testdata(file)))).toBe(arithmetic);
  });
});

describe('atFullAccuracy', () => {
  it('asks for float32 products in a copy', async () => {
    const model = await readModel(testdata('genai-int4/llama/model.onnx'));
    const levels = (of: typeof model) =>
      new Set(
        of.graph.nodes
          .filter((node) => node.opType === 'MatMulNBits')
          .map((node) => intAttribute(node, 'accuracy_level')),
      );
    const before = levels(model);
    expect(levels(atFullAccuracy(model))).toEqual(new Set([1]));
    expect(levels(model)).toEqual(before);
  });

  it('gives back a model without 4-bit weights', async () => {
    const model = await readModel(testdata('genai-fp32/llama/model.onnx'));
    expect(atFullAccuracy(model)).toBe(model);
  });
});

describe('toleranceFor', () => {
  it('is the base for plans that change much', () => {
    expect(toleranceFor('float32', 0.4, 1.5)).toBe(1e-3);
    expect(toleranceFor('int4', 6, 12)).toBe(1e-3);
    expect(toleranceFor('float16', 0.4, 1.5)).toBe(0.02);
    expect(toleranceFor('int8', 0.4, 1.5)).toBe(0.05);
  });

  it('shrinks in float32 for plans that change little, but not below rounding', () => {
    expect(toleranceFor('float32', 1, 0.015)).toBeCloseTo(7.5e-4, 9);
    expect(toleranceFor('float32', 1, 0)).toBe(5e-4);
  });

  it('grows with what the plan moves where products were merged, up to a limit', () => {
    expect(toleranceFor('float32', 1, 0.4, true)).toBe(1e-3);
    expect(toleranceFor('int4', 6, 3, true)).toBeCloseTo(6e-3, 9);
    expect(toleranceFor('float32', 6, 40, true)).toBe(0.02);
    expect(toleranceFor('float32', 6, undefined, true)).toBe(1e-3);
  });

  it('is the base without groups, or without a number to go by', () => {
    expect(toleranceFor('float32', 1, undefined)).toBe(1e-3);
    expect(toleranceFor('float32', Number.NaN, Number.POSITIVE_INFINITY)).toBe(1e-3);
    expect(toleranceFor('float16', Number.NaN, undefined)).toBe(0.02);
  });

  it('grows with the logits where activations are rounded', () => {
    expect(toleranceFor('float16', 5, 10)).toBeCloseTo(0.1, 9);
    expect(toleranceFor('int8', 2, 10)).toBeCloseTo(0.1, 9);
  });
});
