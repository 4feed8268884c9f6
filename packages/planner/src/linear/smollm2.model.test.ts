import { expect, it } from 'vitest';
import { testModel } from '../../../../tools/src/test-model.js';
import { analyze } from '../anatomy/index.js';
import { type Model, readModel } from '../onnx/index.js';
import { locateModel } from '../source/index.js';
import { type LinearMap, linearMaps, readMatrix, replaceMatrices } from './index.js';

async function load(dtype: 'fp32' | 'q4'): Promise<{ model: Model; maps: readonly LinearMap[] }> {
  const model = await readModel((await locateModel(testModel(dtype))).onnxFile);
  const { maps, refusals } = linearMaps(model, analyze(model));
  expect(refusals).toEqual([]);
  expect(maps).toHaveLength(30 * 4);
  return { model, maps };
}

it('reads the same matrices of SmolLM2 in 4-bit blocks with their offsets as in floating point', async () => {
  const [whole, blocks] = [await load('fp32'), await load('q4')];
  for (const [index, map] of blocks.maps.entries()) {
    if (map.layer !== 12) continue;
    const other = whole.maps[index]!;
    expect([other.role, other.inFeatures, other.outFeatures]).toEqual([
      map.role,
      map.inFeatures,
      map.outFeatures,
    ]);
    const found = await readMatrix(blocks.model, map, { threads: 1 });
    const expected = await readMatrix(whole.model, other, { threads: 1 });
    // Products of 4-bit blocks round their inputs; the identity's rows lose nothing by that.
    expect([found.exact, expected.exact]).toEqual([false, true]);
    // Steps of 4 bits are about a seventh of the largest value; the last digit of an offset is far below.
    let [error, size] = [0, 0];
    for (const [i, value] of found.weight.entries()) {
      error += (value - (expected.weight[i] as number)) ** 2;
      size += (expected.weight[i] as number) ** 2;
    }
    expect(Math.sqrt(error / size)).toBeLessThan(1.5e-3);
  }
});

it('takes a 4-bit matrix away with the sums of its input when it is replaced', async () => {
  const { model, maps } = await load('q4');
  const map = maps.find(({ layer, role }) => layer === 12 && role === 'down')!;
  // Cut, summed, padded, put together, multiplied.
  expect(map.nodes).toHaveLength(5);
  const { weight } = await readMatrix(model, map, { threads: 1 });
  const replaced = replaceMatrices(model, [{ map, weight }]);
  expect(replaced.graph.nodes).toHaveLength(model.graph.nodes.length - 4);
  expect(replaced.graph.initializers.size).toBe(model.graph.initializers.size - 1);
});
