import { type Plan, stringifyPlan } from '@cqil/core';
import { beforeAll, describe, expect, it } from 'vitest';
import { topologicalOrder } from '../anatomy/dataflow.js';
import { type Anatomy, analyze } from '../anatomy/index.js';
import { type Model, makeNode, type Node, readModel } from '../onnx/index.js';
import { PLAN_METADATA_KEY, rewriteBranches } from '../rewrite/index.js';
import { checkParity } from './parity.js';
import { golden, testdata, tinyPlan } from './test/fixtures.js';
import { failureOf, verifyRewritten } from './verify.js';

const FIXTURES = [
  ['optimum/llama/onnx/model.onnx', 'llama', 1e-3],
  ['optimum/llama/onnx/model_fp16.onnx', 'llama', 0.02],
  ['optimum/llama/onnx/model_quantized.onnx', 'llama', 0.05],
  ['optimum/gpt2/onnx/model.onnx', 'gpt2', 1e-3],
  ['optimum/qwen2/onnx/model.onnx', 'qwen2', 1e-3],
  ['optimum/phi3/onnx/model.onnx', 'phi3', 1e-3],
  ['genai-fp32/llama/model.onnx', 'llama', 1e-3],
  ['genai-fp32/qwen2/model.onnx', 'qwen2', 1e-3],
  ['genai-int4/llama/model.onnx', 'llama', 1e-3],
] as const;

/** Pairs with bypass 1 and full, three at once, and every layer in a pair, the first and the last ones too. */
const PLANS = [1, 2, 4, 8];
/** The models are too small to share among threads. */
const session = { threads: 1 };

describe.each(FIXTURES)('%s, rewritten', (file, family, tolerance) => {
  it(`meets the method's formulas within ${tolerance}`, async () => {
    const model = await readModel(testdata(file));
    const { plans } = golden(family);
    for (const { groups, bypass } of PLANS.map((index) => plans[index]!)) {
      const { model: rewritten } = rewriteBranches(model, tinyPlan(groups, bypass));
      const report = await verifyRewritten(model, rewritten, { session });
      expect(failureOf(report)).toBeUndefined();
      const parity = report.checks.filter((check) => check.name.startsWith('parity.'));
      const several = file.startsWith('optimum') ? 'parity.padded' : 'parity.batch';
      const run = parity.filter((check) => check.status === 'passed').map((check) => check.name);
      expect(run).toEqual(['parity.prefill', 'parity.decode', several]);
      for (const check of parity.filter(({ status }) => status === 'passed')) {
        expect(check.tolerance).toBe(tolerance);
        expect(check.planEffect).toBeGreaterThan(0.2);
        expect(check.positions).toBeGreaterThan(10);
      }
    }
  });

  it('is the original where the plan has no groups', async () => {
    const model = await readModel(testdata(file));
    const report = await verifyRewritten(model, rewriteBranches(model, tinyPlan([], 0)).model, { session });
    expect(failureOf(report)).toBeUndefined();
  });
});

/** Wrong graphs, made by hand from a right one. */
describe.each([
  'optimum/llama/onnx/model.onnx',
  'genai-fp32/llama/model.onnx',
  'genai-int4/llama/model.onnx',
])('a wrong rewriting of %s', (file) => {
  let model: Model;
  let anatomy: Anatomy;
  beforeAll(async () => {
    model = await readModel(testdata(file));
    anatomy = analyze(model);
  });

  /** The name of what layer `index`'s attention adds to the stream. */
  const attention = (index: number) => anatomy.layers[index]!.attention!.add.contributions[0]!;
  const ffn = (index: number) => anatomy.layers[index]!.ffn!.add.contributions[0]!;

  /** The node that puts `x + something` where a residual sum stood. */
  function joint(graph: Model, name: string): Node {
    return graph.graph.nodes.find((node) => [name, `${name}/Add`].includes(node.name))!;
  }

  function add(graph: Model, terms: readonly string[], label: string): string {
    return terms.reduce((sum, term, index) => {
      const name = `${label}_${index}`;
      graph.graph.addNode(makeNode('Add', [sum, term], [name], { name }));
      return name;
    });
  }

  /** Rewrites well, damages the result and checks it against the plan. */
  async function failures(plan: Plan, damage: (wrong: Model) => void, from: Plan = plan): Promise<string[]> {
    const wrong = rewriteBranches(model, from).model;
    damage(wrong);
    wrong.graph.nodes = topologicalOrder(wrong.graph);
    const checks = await checkParity(model, anatomy, wrong, plan, { short: true, session });
    return checks.filter((check) => !check.ok).map((check) => check.name);
  }

  const several = file.startsWith('optimum') ? 'parity.padded' : 'parity.batch';
  const everywhere = ['parity.prefill', 'parity.decode', several];

  it('fails where the bypass is added to the residual a second time', async () => {
    const damage = (wrong: Model) => {
      const output = joint(wrong, '/cqil/group.0/output');
      output.input[1] = add(wrong, [output.input[1]!, attention(1)], 'twice');
    };
    expect(await failures(tinyPlan([[1, 2]], 1), damage)).toEqual(everywhere);
  });

  it.each([
    ['0 instead of 1', 1, 0],
    ['1 instead of 0', 0, 1],
    ['1 instead of 2', 2, 1],
    ['2 instead of full', 'full', 2],
  ] as const)('fails where the bypass distance is %s', async (_, wanted, made) => {
    const groups = [[1, 2, 3]];
    expect(await failures(tinyPlan(groups, wanted), () => undefined, tinyPlan(groups, made))).toEqual(
      everywhere,
    );
  });

  it('fails where the bypass runs from later layers to earlier ones', async () => {
    const damage = (wrong: Model) => {
      joint(wrong, '/cqil/group.0/layer.1/ffn_input').input[1] = add(
        wrong,
        [attention(1), attention(2)],
        'back',
      );
      joint(wrong, '/cqil/group.0/layer.2/ffn_input').input[1] = attention(2);
    };
    expect(await failures(tinyPlan([[1, 2]], 1), damage)).toEqual(everywhere);
  });

  it('fails where other layers are grouped', async () => {
    const plan = tinyPlan([[1, 2]], 1);
    expect(await failures(plan, () => undefined, tinyPlan([[2, 3]], 1))).toEqual(everywhere);
  });

  it.each(['attention', 'FFN'])('fails where the %s of one layer is missing in the sum', async (part) => {
    const damage = (wrong: Model) => {
      const kept = part === 'FFN' ? [attention(1), ffn(1), attention(2)] : [attention(1), ffn(1), ffn(2)];
      joint(wrong, '/cqil/group.0/output').input[1] = add(wrong, kept, 'kept');
    };
    expect(await failures(tinyPlan([[1, 2]], 1), damage)).toEqual(everywhere);
  });

  it('fails where an FFN does not see its own attention', async () => {
    const damage = (wrong: Model) => {
      joint(wrong, '/cqil/group.0/layer.2/ffn_input').input[1] = attention(1);
    };
    expect(await failures(tinyPlan([[1, 2]], 1), damage)).toEqual(everywhere);
  });

  it('fails where the caches of two layers are given out under each other’s names', async () => {
    const damage = (wrong: Model) => {
      for (const kind of ['key', 'value']) swapOutputs(wrong, `present.1.${kind}`, `present.2.${kind}`);
    };
    expect(await failures(tinyPlan([[1, 2]], 1), damage)).toEqual(everywhere);
  });

  it('fails where both ends of two caches are swapped, so that the logits are right', async () => {
    const damage = (wrong: Model) => {
      for (const kind of ['key', 'value']) {
        swapOutputs(wrong, `present.1.${kind}`, `present.2.${kind}`);
        swapInputs(wrong, `past_key_values.1.${kind}`, `past_key_values.2.${kind}`);
      }
    };
    expect(await failures(tinyPlan([[1, 2]], 1), damage)).toEqual(everywhere);
  });

  it('fails in decoding where only the caches that are read are swapped', async () => {
    const damage = (wrong: Model) => {
      for (const kind of ['key', 'value'])
        swapInputs(wrong, `past_key_values.1.${kind}`, `past_key_values.2.${kind}`);
    };
    expect(await failures(tinyPlan([[1, 2]], 1), damage)).toEqual(['parity.decode', several]);
  });

  it('fails where nothing was rewritten', async () => {
    const report = await verifyRewritten(model, claiming(model, tinyPlan([[1, 2]], 1)), { session });
    expect(report.checks.filter((check) => !check.ok).map((check) => check.name)).toEqual(everywhere);
  });

  it('fails where ONNX Runtime refuses the graph, and says so', async () => {
    const wrong = rewriteBranches(model, tinyPlan([[1, 2]], 1)).model;
    joint(wrong, '/cqil/group.0/output').opType = 'NoSuchOperator';
    const checks = await checkParity(model, anatomy, wrong, tinyPlan([[1, 2]], 1));
    expect(checks).toEqual([
      expect.objectContaining({ name: 'parity', ok: false, code: 'MODEL_LOAD_FAILED' }),
    ]);
  });
});

describe.each(['model_fp16.onnx', 'model_quantized.onnx'])('a wrong rewriting of %s', (name) => {
  it('fails although rounding is measured and allowed for', async () => {
    const model = await readModel(testdata(`optimum/llama/onnx/${name}`));
    const wrong = rewriteBranches(model, tinyPlan([[1, 2, 3]], 0)).model;
    const checks = await checkParity(model, analyze(model), wrong, tinyPlan([[1, 2, 3]], 1), {
      short: true,
      session,
    });
    expect(checks.map(({ ok }) => ok)).toEqual([false, false, false]);
    for (const check of checks) {
      expect(check.noise).toBeLessThan(0.05);
      expect(check.tolerance).toBeLessThan(0.1 * (check.planEffect as number) + 0.01);
    }
  });
});

describe('checkParity', () => {
  it('stops when it is told to', async () => {
    const model = await readModel(testdata('genai-fp32/llama/model.onnx'));
    const plan = tinyPlan([[1, 2]], 1);
    const controller = new AbortController();
    const phases = new Set<string>();
    const run = checkParity(model, analyze(model), rewriteBranches(model, plan).model, plan, {
      signal: controller.signal,
      onProgress: ({ phase }) => {
        phases.add(phase);
        if (phase === 'computing the method') controller.abort(new Error('enough'));
      },
    });
    await expect(run).rejects.toThrow('enough');
    expect([...phases]).toEqual([
      'running the original',
      'running the rewritten model',
      'computing the method',
    ]);
  });

  it('runs a text, too', async () => {
    const model = await readModel(testdata('optimum/gpt2/onnx/model.onnx'));
    const plan = tinyPlan([[1, 2, 3]], 2);
    const text = golden('gpt2').ids;
    const checks = await checkParity(model, analyze(model), rewriteBranches(model, plan).model, plan, {
      text,
    });
    expect(checks.find((check) => check.name === 'parity.text')).toMatchObject({
      ok: true,
      positions: text.length,
    });
  });
});

function claiming(model: Model, plan: Plan): Model {
  const copy = model.clone();
  copy.setMetadata(PLAN_METADATA_KEY, stringifyPlan(plan));
  return copy;
}

function swapOutputs(model: Model, a: string, b: string): void {
  const other = new Map([
    [a, b],
    [b, a],
  ]);
  for (const node of model.graph.nodes) node.output = node.output.map((name) => other.get(name) ?? name);
}

function swapInputs(model: Model, a: string, b: string): void {
  const other = new Map([
    [a, b],
    [b, a],
  ]);
  for (const node of model.graph.nodes) node.input = node.input.map((name) => other.get(name) ?? name);
}
