import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { importGguf } from '../gguf/index.js';
import { tinyPairs, tinyTensors } from '../gguf/testing/tiny-llama.js';
import { writeGguf } from '../gguf/testing/write-gguf.js';
import { readModel } from '../onnx/index.js';
import { findSites } from './sites.js';

describe('findSites', () => {
  it.each([
    ['F32', 'F32', 1],
    // What gives the logits is in blocks: no product in front of it is a head.
    ['Q8_0', 'Q8_0', 0],
    ['Q8_0', 'Q4_1', 0],
  ] as const)('layers in %s but for `down`, a tied table in %s: %i heads', async (type, embedding, count) => {
    const dir = await mkdtemp(path.join(os.tmpdir(), 'cqil-sites-'));
    onTestFinished(() => rm(dir, { recursive: true, force: true }));
    const file = path.join(dir, 'tiny.gguf');
    const tensors = tinyTensors({
      type: (name) => (name.includes('ffn_down') ? 'F32' : type),
      embedding,
    });
    await writeFile(file, writeGguf({ pairs: tinyPairs(), tensors }));
    const { onnxFile } = await importGguf(file, path.join(dir, 'model'), { dtype: 'source' });
    const { products } = findSites(await readModel(onnxFile), 'input_ids', 'logits');
    expect(products.filter(({ head }) => head)).toHaveLength(count);
    expect(products.filter(({ name }) => name.includes('down'))).toHaveLength(2);
  });
});
