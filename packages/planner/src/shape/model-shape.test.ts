import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { importGguf } from '../gguf/import.js';
import { tinyPairs, tinyTensors } from '../gguf/testing/tiny-llama.js';
import { writeGguf } from '../gguf/testing/write-gguf.js';
import type { QuantType } from '../gguf/types.js';
import { locateModel } from '../source/index.js';
import { shapeOfModel } from './model-shape.js';

async function shapeOf(type: QuantType | ((name: string) => QuantType)) {
  const dir = await mkdtemp(join(tmpdir(), 'cqil-shape-'));
  onTestFinished(() => rm(dir, { recursive: true, force: true }));
  const file = join(dir, 'tiny.gguf');
  await writeFile(file, writeGguf({ pairs: tinyPairs(), tensors: tinyTensors({ type }) }));
  await importGguf(file, join(dir, 'model'), { dtype: 'source' });
  return shapeOfModel(await locateModel(join(dir, 'model')));
}

it('knows blocks whose products read sums of their input, and counts the nodes of these by themselves', async () => {
  const plain = await shapeOf('Q4_0');
  const summed = await shapeOf('Q4_K');
  expect(plain.offsets).toBeUndefined();
  expect(summed.offsets).toEqual({ block: 32, digits: 2 });
  const { hidden, ffn, kernels } = plain;
  // The output matrix reads sums, too: cut, summed, padded, put together.
  expect(summed).toMatchObject({ hidden, ffn, kernels: { ...kernels, outside: (kernels.outside ?? 0) + 4 } });
  // Codes and a float32 scale in 32; zero points besides.
  expect(plain.weightBits).toBeCloseTo(5, 6);
  expect(summed.weightBits).toBeGreaterThan(5);
  expect(summed.weightBits).toBeLessThan(5.3);
});

it('has the kind of most weights where a layer mixes them, and the others’ sums as kernels of their own', async () => {
  const mixed = await shapeOf((name) => (/attn_v|ffn_down/.test(name) ? 'Q6_K' : 'Q4_K'));
  expect(mixed.offsets).toEqual({ block: 32, digits: 2 });
  const few = await shapeOf((name) => (name.includes('attn_output') ? 'Q4_K' : 'Q8_0'));
  const none = await shapeOf('Q8_0');
  expect(few.offsets).toBeUndefined();
  expect(few.ffn).toBe(none.ffn);
  expect(few.kernels.attention - none.kernels.attention).toBe(4);
});
