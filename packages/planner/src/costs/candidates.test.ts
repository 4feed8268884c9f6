import { PlanError, parsePlan } from '@cqil/core';
import { describe, expect, it } from 'vitest';
import { type Anatomy, analyze } from '../anatomy/index.js';
import { readModel } from '../onnx/index.js';
import { rewriteBranches } from '../rewrite/index.js';
import { testdata } from '../verify/test/fixtures.js';
import { candidateGroups } from './candidates.js';

const anatomyOf = async (file: string) => analyze(await readModel(testdata(file)));
const llama = 'optimum/llama/onnx/model.onnx';

describe('candidateGroups', () => {
  it('gives all runs of neighbours with every bypass that makes a difference', async () => {
    const anatomy = await anatomyOf(llama);
    const found = candidateGroups(anatomy, { groupSizes: [3, 2, 3] });
    const expected = [];
    for (let first = 0; first < 6; first++) {
      for (const size of [2, 3]) {
        if (first + size > 6) continue;
        const layers = Array.from({ length: size }, (_, i) => first + i);
        for (const bypass of size === 2 ? [0, 1, 'full'] : [0, 1, 2, 'full'])
          expected.push({ layers, bypass });
      }
    }
    expect(found).toEqual(expected);
    expect(candidateGroups(anatomy)).toHaveLength(5 * 3 + 4 * 4 + 3 * 5);
  });

  it('takes the bypasses asked for, those alike in effect once', async () => {
    const anatomy = await anatomyOf(llama);
    const bypasses = candidateGroups(anatomy, { groupSizes: [2, 4], bypasses: ['full', 3, 1, 0] })
      .filter(({ layers }) => layers[0] === 2)
      .map(({ layers, bypass }) => [layers.length, bypass]);
    expect(bypasses).toEqual([
      [2, 0],
      [2, 1],
      [2, 'full'],
      [4, 0],
      [4, 1],
      [4, 3],
      [4, 'full'],
    ]);
  });

  it('gives parallel layers no bypass', async () => {
    const found = candidateGroups(await anatomyOf('families/phi/optimum/onnx/model.onnx'));
    expect(found.length).toBeGreaterThan(3);
    expect(new Set(found.map(({ bypass }) => bypass))).toEqual(new Set([0]));
  });

  it('gives exactly what the rewriter takes', async () => {
    const model = await readModel(testdata(llama));
    // The third layer's output is given out, so it exists for others and cannot be inside a group.
    const exposed = model.clone();
    exposed.graph.outputs.push({ ...model.graph.outputs[0]!, name: analyze(model).layers[2]!.output });
    const anatomy: Anatomy = analyze(exposed);
    expect(anatomy.layers.filter(({ ungroupable }) => ungroupable !== undefined).length).toBeGreaterThan(0);
    const offered = candidateGroups(anatomy, { groupSizes: [2], bypasses: [1] }).map(
      ({ layers }) => layers[0],
    );
    const taken = [0, 1, 2, 3, 4].filter((first) => {
      const plan = parsePlan({ version: 1, layers: 6, groups: [{ layers: [first, first + 1], bypass: 1 }] });
      try {
        rewriteBranches(exposed, plan);
        return true;
      } catch (error) {
        if (error instanceof PlanError) return false;
        throw error;
      }
    });
    expect(offered).toEqual(taken);
    expect(taken.length).toBeLessThan(5);
    expect(taken.length).toBeGreaterThan(0);
  });

  it('refuses sizes and bypasses that are none', async () => {
    const anatomy = await anatomyOf(llama);
    for (const options of [
      { groupSizes: [] },
      { groupSizes: [1] },
      { groupSizes: [2.5] },
      { bypasses: [] },
      { bypasses: [-1] },
    ]) {
      expect(() => candidateGroups(anatomy, options)).toThrow(
        expect.objectContaining({ code: 'COSTS_OPTIONS' }),
      );
    }
  });
});
