import { describe, expect, it } from 'vitest';
import type { ModelDescription } from '../inspect/describe.js';
import { cqil, testdata } from '../test/run.js';

describe('cqil inspect', () => {
  it.each([
    ['optimum/llama', 'llama', 'fp32'],
    ['optimum/gpt2', 'gpt2', 'fp32'],
    ['genai-fp32/qwen2', 'qwen2', 'as-is'],
    ['genai-int4/llama', 'llama', 'as-is'],
  ])('describes %s', async (folder, type, dtype) => {
    const { code, stdout, stderr } = await cqil('inspect', testdata(folder), '--json');
    expect(stderr).toBe('');
    expect(code).toBe(0);
    const found = JSON.parse(stdout) as ModelDescription;
    expect(found.architecture.type).toBe(type);
    expect(found.model.dtype).toBe(dtype);
    expect(found.layers).toHaveLength(6);
    expect(found.layers.every(({ kind, groupable }) => kind === 'sequential' && groupable)).toBe(true);
    expect(found.grouping).toEqual({ runs: [[0, 6]], bypass: true, refused: [] });
    expect(found.sizes.weightBytes).toBeGreaterThan(100_000);
  });

  it('counts the values of packed weights as those of plain ones', async () => {
    const of = async (folder: string) =>
      (JSON.parse((await cqil('inspect', testdata(folder), '--json')).stdout) as ModelDescription).sizes;
    const [plain, packed] = [await of('genai-fp32/llama'), await of('genai-int4/llama')];
    expect(packed.weightBytes).toBeLessThan(plain.weightBytes / 2);
    expect(packed.parameters / plain.parameters).toBeCloseTo(1, 1);
  });

  it('tells people the same', async () => {
    const { code, stdout, stderr } = await cqil('inspect', testdata('optimum/llama'), '--dtype', 'q8');
    expect(code).toBe(0);
    expect(stdout).toBe('');
    expect(stderr).toMatch(/graph +onnx\/model_quantized\.onnx/);
    expect(stderr).toMatch(/layers 0–5: sequential, norms rms\/rms/);
    expect(stderr).toMatch(/groupable +layers 0–5/);
    expect(stderr).toMatch(/MatMulInteger × \d+/);
  });

  it('refuses what is no model with a code', async () => {
    const { code, stdout } = await cqil('inspect', testdata('golden'), '--json');
    expect(code).toBe(2);
    expect(JSON.parse(stdout)).toMatchObject({ error: { code: 'MODEL_FOLDER_WITHOUT_MODEL' } });
  });
});
