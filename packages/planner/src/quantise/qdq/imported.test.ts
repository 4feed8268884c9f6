import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { importGguf } from '../../gguf/index.js';
import { type TinyOptions, tinyPairs, tinyTensors } from '../../gguf/testing/tiny-llama.js';
import { writeGguf } from '../../gguf/testing/write-gguf.js';
import { logitsOf } from '../../linear/testing/fixtures.js';
import { structuralFaults } from '../../onnx/check.js';
import { DataType, type Model, operatorName, readModel } from '../../onnx/index.js';
import { withFloatTables } from '../float-tables.js';
import { findSites } from '../sites.js';
import { quantiseQdq } from './index.js';

const session = { threads: 1 };
const calibration = [
  [5, 17, 21, 3, 9, 40, 11, 2, 33, 8, 60, 12],
  [1, 7, 90, 3, 250, 4, 11, 19, 33, 180, 6, 2],
];

async function imported(options: TinyOptions): Promise<Model> {
  const dir = await mkdtemp(path.join(os.tmpdir(), 'cqil-qdq-'));
  onTestFinished(() => rm(dir, { recursive: true, force: true }));
  const file = path.join(dir, 'tiny.gguf');
  await writeFile(file, writeGguf({ pairs: tinyPairs(), tensors: tinyTensors(options) }));
  return readModel((await importGguf(file, path.join(dir, 'model'), { dtype: 'source' })).onnxFile);
}

const operators = ({ graph }: Model) => new Set(graph.nodes.map(operatorName));

function relative(found: Float32Array, truth: Float32Array): number {
  expect(found.length).toBe(truth.length);
  let [error, size] = [0, 0];
  for (const [i, value] of truth.entries()) {
    error += (found[i]! - value) ** 2;
    size += value ** 2;
  }
  return Math.sqrt(error / size);
}

/** A source whose products do not round what they read: what is left is what the table stands for. */
function unrounded(source: Model): Model {
  const model = source.clone();
  for (const node of model.graph.nodes) {
    for (const attribute of node.attribute) if (attribute.name === 'accuracy_level') attribute.i = 1n;
  }
  return model;
}

describe('withFloatTables', () => {
  it.each(['Q8_0', 'Q4_0', 'Q4_1'] as const)('reads a tied table in %s', async (embedding) => {
    const source = unrounded(await imported({ type: 'Q8_0', embedding }));
    const model = withFloatTables(source);
    expect(structuralFaults(model)).toEqual([]);
    expect(operators(model)).not.toContain('com.microsoft::GatherBlockQuantized');
    // Minima beside blocks have codes of their own for the head.
    const { products, lookups } = findSites(model, 'input_ids', 'logits');
    expect(lookups.map(({ tensor }) => tensor.dataType)).toEqual([DataType.FLOAT]);
    const heads = products.filter(({ head }) => head);
    expect(heads).toHaveLength(embedding === 'Q4_1' ? 0 : 1);
    expect(relative(await logitsOf(model), await logitsOf(source))).toBeLessThan(1e-4);
  });

  it('leaves a model without such tables alone', async () => {
    const source = await imported({ type: 'F32' });
    expect(withFloatTables(source)).toBe(source);
  });
});

describe('quantiseQdq of imported models', () => {
  it.each([
    ['Q8_0', undefined],
    ['Q4_0', undefined],
    ['Q4_1', undefined],
    ['Q8_0', 'Q8_0'],
  ] as const)(
    'puts tables in %s and heads, %s of their own, into codes, in a turned stream',
    async (embedding, output) => {
      const source = await imported({ type: 'Q8_0', embedding, ...(output === undefined ? {} : { output }) });
      const options = { calibration, inputBits: 16, session } as const;
      const { model, left, matrices, rotation } = await quantiseQdq(source, options);
      expect(rotation).toEqual({ applied: true });
      expect(left).toEqual([]);
      expect(matrices.filter(({ use }) => use === 'head')).toHaveLength(1);
      expect(operators(model)).not.toContain('com.microsoft::MatMulNBits');
      expect(operators(model)).not.toContain('com.microsoft::GatherBlockQuantized');
      expect(relative(await logitsOf(model), await logitsOf(source))).toBeLessThan(0.1);
    },
  );

  it('names what cannot be turned', async () => {
    const source = await imported({ type: 'Q8_0', biases: true });
    const { rotation } = await quantiseQdq(source, { calibration, session });
    expect(rotation).toMatchObject({ applied: false, reason: expect.stringContaining('Add') });
  });
});
