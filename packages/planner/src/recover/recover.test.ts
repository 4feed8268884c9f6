import { fileURLToPath } from 'node:url';
import type { Plan } from '@cqil/core';
import { DecoderSession, seededRandom } from '@cqil/runtime-gpu';
import { describe, expect, it } from 'vitest';
import { analyze } from '../anatomy/index.js';
import { compare } from '../evaluate/index.js';
import { readMatrix } from '../linear/index.js';
import { type Model, readModel } from '../onnx/index.js';
import { rewriteBranches } from '../rewrite/index.js';
import { openVariant } from '../variant/index.js';
import { recover } from './recover.js';
import type { GroupRecovery } from './types.js';

const testdata = (file: string) => fileURLToPath(new URL(`../../../../testdata/${file}`, import.meta.url));
const session = { threads: 1 };

/** Token ids below 250, which every fixture's vocabulary has. */
function windowsOf(seed: number, count: number, length = 48): number[][] {
  const random = seededRandom(seed);
  return Array.from({ length: count }, () => Array.from({ length }, () => 1 + Math.floor(random() * 248)));
}
const calibration = windowsOf(1, 40);
const development = windowsOf(2, 12);
const unseen = windowsOf(3, 4).flat();

function planOf(model: Model, bypass: Plan['groups'][number]['bypass'] = 1): Plan {
  const { length } = analyze(model).layers;
  return {
    version: 1,
    layers: length,
    groups: [{ layers: [1, 2], bypass }, ...(length > 5 ? [{ layers: [3, 4], bypass: 0 }] : [])],
  };
}

async function divergence(original: Model, model: Model, plan: Plan): Promise<number> {
  const rewritten = rewriteBranches(model, plan).model;
  const a = new DecoderSession(await openVariant(original, session));
  const b = new DecoderSession(await openVariant(rewritten, session));
  try {
    return (await compare(a, b, unseen, { window: 48 })).kl;
  } finally {
    await a.dispose();
    await b.dispose();
  }
}

async function recovered(file: string, bypass?: Plan['groups'][number]['bypass']) {
  const model = await readModel(testdata(file));
  const plan = planOf(model, bypass);
  const result = await recover(model, analyze(model), plan, { calibration, development, session });
  return { model, plan, result };
}

describe('recover', () => {
  it.each([
    ['optimum/llama/onnx/model.onnx', 1],
    ['optimum/llama/onnx/model.onnx', 'full'],
    ['optimum/qwen2/onnx/model.onnx', 0],
    ['optimum/phi3/onnx/model.onnx', 1],
    ['optimum/gpt2/onnx/model.onnx', 1],
    ['genai-fp32/llama/model.onnx', 1],
    ['genai-int4/llama/model.onnx', 1],
    ['optimum/llama/onnx/model_quantized.onnx', 1],
  ] as const)('%s, bypass %s: closer to the original on tokens it never saw', async (file, bypass) => {
    const { model, plan, result } = await recovered(file, bypass);
    const steps = result.groups.flatMap((group) => group.steps);
    expect(steps.some(({ kept, matrix }) => kept && matrix === 'down')).toBe(true);
    for (const { before, after, kept } of steps) expect(after).toBeLessThanOrEqual(kept ? before : before);
    const [plain, repaired] = [
      await divergence(model, model, plan),
      await divergence(model, result.model, plan),
    ];
    expect(repaired).toBeLessThan(plain);
    // No node and no input that was not there; the original itself was not changed.
    expect(result.model.graph.inputs.map(({ name }) => name)).toEqual(
      model.graph.inputs.map(({ name }) => name),
    );
    expect(await divergence(model, model, { ...plan, groups: [] })).toBe(0);
  });

  it('refits what has a matrix and says why the rest has none', async () => {
    const { result } = await recovered('families/gemma2/genai-fp32/model.onnx');
    const down = result.groups.flatMap((group) => group.steps).filter(({ matrix }) => matrix === 'down');
    expect(down.length).toBeGreaterThan(0);
    expect(down.every(({ kept, reason }) => !kept && /norm/.test(reason ?? ''))).toBe(true);
  });

  it('refits parallel blocks', async () => {
    const { model, plan, result } = await recovered('families/gpt_neox/optimum/onnx/model.onnx');
    expect(await divergence(model, result.model, plan)).toBeLessThan(await divergence(model, model, plan));
  });

  it('gives the same matrices when it goes on after a stop', async () => {
    const model = await readModel(testdata('optimum/llama/onnx/model.onnx'));
    const anatomy = analyze(model);
    const plan = planOf(model);
    const done: GroupRecovery[] = [];
    const options = { calibration, development, session };
    const whole = await recover(model, anatomy, plan, {
      ...options,
      onGroup: (group) => void done.push(group),
    });
    expect(done).toEqual(whole.groups);
    const again: GroupRecovery[] = [];
    const resumed = await recover(model, anatomy, plan, {
      ...options,
      known: done.slice(0, 1),
      onGroup: (group) => void again.push(group),
    });
    expect(again.map(({ layers }) => layers)).toEqual(plan.groups.slice(1).map(({ layers }) => layers));
    expect(resumed.groups).toEqual(whole.groups);
  });

  it('hands out the matrices that the model holds', async () => {
    const { result } = await recovered('optimum/llama/onnx/model.onnx');
    const replacements = result.groups.flatMap((group) => group.replacements);
    expect(replacements.length).toBeGreaterThan(4);
    for (const { map, weight } of replacements) {
      const held = await readMatrix(result.model, map, session);
      expect(held.weight).toEqual(weight);
    }
  });

  it('wants more tokens than unknowns', async () => {
    const model = await readModel(testdata('optimum/llama/onnx/model.onnx'));
    const few = recover(model, analyze(model), planOf(model), {
      calibration: windowsOf(1, 2),
      development,
      session,
    });
    await expect(few).rejects.toMatchObject({ code: 'RECOVERY_TEXT_TOO_SHORT' });
    const none = recover(model, analyze(model), planOf(model), { calibration, development: [], session });
    await expect(none).rejects.toMatchObject({ code: 'RECOVERY_TEXT_TOO_SHORT' });
  });

  it('stops when it is told to', async () => {
    const model = await readModel(testdata('optimum/llama/onnx/model.onnx'));
    const stop = new AbortController();
    const running = recover(model, analyze(model), planOf(model), {
      calibration,
      development,
      session,
      signal: stop.signal,
      onGroup: () => stop.abort(new Error('enough')),
    });
    await expect(running).rejects.toThrow('enough');
  });
});
