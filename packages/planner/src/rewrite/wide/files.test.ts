import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { type Plan, parsePlan } from '@cqil/core';
import { DecoderSession } from '@cqil/runtime-gpu';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { analyze } from '../../anatomy/index.js';
import { type Model, readModel, shapeOf, Tensor, writeModel } from '../../onnx/index.js';
import { locateModel } from '../../source/index.js';
import { openVariant } from '../../variant/index.js';
import { verify, verifyRewritten } from '../../verify/index.js';
import { PLAN_METADATA_KEY, rewriteBranches, rewriteModel } from '../index.js';
import { meetsGolden } from '../testing/meets-golden.js';
import { cacheEntries, KV_METADATA_KEY, rewriteGroups, WIDE_METADATA_KEY, wideGroups } from './index.js';

const testdata = path.resolve(import.meta.dirname, '../../../../../testdata');

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(path.join(os.tmpdir(), 'cqil-wide-'));
});
afterAll(() => rm(dir, { recursive: true }));

const plan: Plan = parsePlan({
  version: 1,
  layers: 6,
  groups: [
    { layers: [0, 1], bypass: 1 },
    { layers: [2, 3, 4], bypass: 'full', form: 'wide' },
  ],
});

describe.each([
  ['optimum/llama/onnx/model.onnx', 'tiny-llama'],
  ['optimum/gpt2/onnx/model.onnx', 'tiny-gpt2'],
  ['genai-fp32/llama/model.onnx', 'tiny-llama'],
  ['genai-fp32/qwen2/model.onnx', 'tiny-qwen2'],
])('%s with wide layers', (model, name) => {
  it('computes what an independent implementation computes', { timeout: 60_000 }, async () => {
    const rewrite = async (source: Model, of: Plan) => {
      const groups = of.groups.map((group) => ({ ...group, form: 'wide' as const }));
      return (await rewriteGroups(source, { ...of, groups })).model;
    };
    const golden = path.join(testdata, 'golden', `${name}.json`);
    const tried = await meetsGolden(path.join(testdata, model), golden, dir, { bypass: 'full', rewrite });
    expect(tried).toBeGreaterThan(0);
  });
});

describe.each(['optimum/llama', 'genai-fp32/llama', 'genai-int4/llama'])('a folder of %s', (name) => {
  it.each(['layers', 'merged'] as const)(
    'has branches and wide layers side by side, caches %s',
    async (kv) => {
      const source = await locateModel(path.join(testdata, name));
      const out = path.join(dir, `${name.replaceAll('/', '-')}-${kv}`);
      const { onnxFile } = await rewriteModel(source, plan, out, { wide: { kv } });
      const report = await verify(source, out);
      expect(report.checks.filter(({ ok }) => !ok)).toEqual([]);
      expect(report.checks).toContainEqual(
        expect.objectContaining({ name: 'parity.decode', status: 'passed' }),
      );
      const model = await readModel(onnxFile);
      expect(wideGroups(model)).toMatchObject([{ group: 1, layers: [2, 3, 4] }]);
      const pasts = model.graph.inputs.filter(({ name: input }) => input.endsWith('.key'));
      if (kv === 'layers') expect(pasts.map((info) => shapeOf(info)?.[1])).toEqual([2, 2, 2, 2, 2, 2]);
      else {
        expect(pasts.map((info) => [info.name, shapeOf(info)?.[1]])).toEqual([
          ['past_key_values.0.key', 2],
          ['past_key_values.1.key', 2],
          ['past_key_values.2.key', 6],
          ['past_key_values.3.key', 2],
        ]);
        expect(cacheEntries(model)?.[2]).toEqual({
          layers: [2, 3, 4],
          heads: [2, 2, 2],
          inputs: ['past_key_values.2.key', 'past_key_values.2.value'],
          outputs: ['present.2.key', 'present.2.value'],
        });
      }
    },
  );
});

describe('the layer that a wide group becomes', () => {
  it('is one layer, its attention fed by the cache itself where that is merged', async () => {
    const source = await readModel(path.join(testdata, 'genai-fp32/llama/model.onnx'));
    const { model } = await rewriteGroups(source, plan, { kv: 'merged' });
    const wide = model.graph.nodes.filter(({ name }) => name.startsWith('/cqil/group.1/'));
    const count = (opType: string) => wide.filter((node) => node.opType === opType).length;
    expect(['MatMul', 'GroupQueryAttention', 'Sigmoid', 'Concat', 'Split'].map(count)).toEqual([
      5, 1, 1, 0, 0,
    ]);
    const attention = wide.find(({ opType }) => opType === 'GroupQueryAttention');
    expect(attention?.input.slice(3, 5)).toEqual(['past_key_values.2.key', 'past_key_values.2.value']);
    expect(attention?.output.slice(1)).toEqual(['present.2.key', 'present.2.value']);
    // A group of branches is one block to the analysis, too.
    expect(analyze(model).layers.map(({ kind }) => kind)).toHaveLength(3);
    expect(analyze(model).layers[1]).toMatchObject({ kind: 'sequential' });
  });

  it('keeps the codes of the member whose norm is shared, and of all o and down', async () => {
    const source = await readModel(path.join(testdata, 'genai-int4/llama/model.onnx'));
    const { model } = await rewriteGroups(source, plan);
    const bytes = async (of: Model, name: string) => of.graph.initializers.get(name)!.bytes();
    const wide = await bytes(model, 'cqil.group.1.attention.o.codes');
    // [64 outputs, 2 blocks a member, 16 bytes]
    for (const [i, layer] of [2, 3, 4].entries()) {
      const own = await bytes(source, `model.layers.${layer}.attn.o_proj.MatMul.weight_Q4`);
      const row = (j: number) => wide.subarray((j * 6 + 2 * i) * 16, (j * 6 + 2 * i + 2) * 16);
      for (const j of [0, 17, 63]) expect(row(j)).toEqual(own.subarray(j * 32, (j + 1) * 32));
    }
    const gate = await bytes(model, 'cqil.group.1.ffn.in.0.codes');
    const kept = await Promise.all(
      [2, 3, 4].map(async (layer, i) => {
        const own = await bytes(source, `model.layers.${layer}.mlp.gate_proj.MatMul.weight_Q4`);
        return Buffer.compare(gate.subarray(i * own.length, (i + 1) * own.length), own) === 0;
      }),
    );
    expect(kept.filter(Boolean)).toHaveLength(1);
  });

  it('is written to the last byte alike each time', async () => {
    const source = await readModel(path.join(testdata, 'genai-int4/llama/model.onnx'));
    const files = await Promise.all(
      ['a', 'b'].map(async (name) => {
        const file = path.join(dir, name, 'model.onnx');
        await writeModel((await rewriteGroups(source, plan)).model, file, { external: 'inline' });
        return readFile(file);
      }),
    );
    expect(files[0]?.equals(files[1] as Buffer)).toBe(true);
  });
});

describe('verify', () => {
  const source = () => readModel(path.join(testdata, 'genai-int4/llama/model.onnx'));

  async function failing(change: (model: Model) => Promise<void> | void, kv: 'layers' | 'merged' = 'layers') {
    const original = await source();
    const { model } = await rewriteGroups(original, plan, { kv });
    await change(model);
    const { checks } = await verifyRewritten(original, model);
    return checks.filter(({ ok }) => !ok).map(({ name, code }) => `${name} ${code}`);
  }

  it('finds one code of a wide matrix that is another', async () => {
    const changed = await failing(async (model) => {
      const name = 'cqil.group.1.ffn.down.codes';
      const tensor = model.graph.initializers.get(name) as Tensor;
      const bytes = Uint8Array.from(await tensor.bytes());
      bytes[100] = (bytes[100] as number) ^ 0x0f;
      model.graph.addInitializer(Tensor.create(name, tensor.dataType, tensor.dims, bytes));
    });
    expect(changed).toContain('wide WIDE_MATRIX');
  });

  it('finds members in another order', async () => {
    const changed = await failing((model) => {
      const text = model.metadata(WIDE_METADATA_KEY) as string;
      const groups = JSON.parse(text) as ReturnType<typeof wideGroups>;
      const { pieces } = groups[0]!.ffn!.products.at(-1)!;
      [pieces[0]!.output, pieces[1]!.output] = [pieces[1]!.output, pieces[0]!.output];
      model.setMetadata(WIDE_METADATA_KEY, JSON.stringify(groups));
    });
    expect(changed).toContain('wide WIDE_MATRIX');
  });

  it('finds wide layers that are declared nowhere, and declarations of others', async () => {
    expect(await failing((model) => model.setMetadata(WIDE_METADATA_KEY, '[]'))).toContain(
      'wide WIDE_UNDECLARED',
    );
    expect(
      await failing((model) => {
        const text = model.metadata(PLAN_METADATA_KEY) as string;
        model.setMetadata(PLAN_METADATA_KEY, text.replace(', "form": "wide"', ''));
      }),
    ).not.toEqual([]);
  });

  it('finds caches that are not merged as they say', async () => {
    const changed = await failing((model) => {
      const entries = cacheEntries(model)!;
      entries[2]!.heads = [4, 1, 1];
      model.setMetadata(KV_METADATA_KEY, JSON.stringify(entries));
    }, 'merged');
    expect(changed).toEqual(['shapes KV_METADATA']);
  });
});

describe('programs that know nothing of wide layers', () => {
  const ids = [1, 17, 254, 33, 8, 99];

  /** Best tokens, one by one. */
  async function greedy(decoder: DecoderSession, count = 6): Promise<number[]> {
    const found: number[] = [];
    let step = await decoder.forward({ inputIds: [ids] });
    for (let i = 0; i < count; i++) {
      const vocabulary = step.logits.dims[2];
      const row = step.logits.data.slice(-vocabulary);
      found.push(row.indexOf(Math.max(...row)));
      step = await decoder.forward({ inputIds: [[found.at(-1) as number]], cache: step.cache });
    }
    await decoder.dispose();
    return found;
  }

  it.each(['layers', 'merged'] as const)(
    'our runtime goes on past the room of its caches, %s',
    async (kv) => {
      const source = await locateModel(path.join(testdata, 'genai-fp32/llama'));
      const out = path.join(dir, `long-${kv}`);
      const { onnxFile } = await rewriteModel(source, plan, out, { wide: { kv } });
      const branches = { ...plan, groups: plan.groups.map(({ layers, bypass }) => ({ layers, bypass })) };
      const expected = rewriteBranches(await readModel(source.onnxFile), branches).model;
      // Rooms are moved layer by layer some positions before they end, at 64 and 128 here.
      const tokens = await greedy(await DecoderSession.open(onnxFile), 140);
      expect(tokens).toEqual(await greedy(new DecoderSession(await openVariant(expected)), 140));
    },
  );

  it.each(['layers', 'merged'] as const)('unchanged Transformers.js generates with caches %s', async (kv) => {
    const folder = path.join(dir, `transformers-${kv}`);
    await cp(path.join(testdata, 'optimum/llama'), folder, { recursive: true });
    const source = await locateModel(folder);
    const out = path.join(dir, `transformers-${kv}-wide`);
    await rewriteModel(source, plan, out, { wide: { kv } });
    await writeFile(path.join(out, 'generation_config.json'), '{}');
    const branches = { ...plan, groups: plan.groups.map(({ layers, bypass }) => ({ layers, bypass })) };
    const expected = await greedy(
      new DecoderSession(
        await openVariant(rewriteBranches(await readModel(source.onnxFile), branches).model),
      ),
    );
    expect(await greedy(await DecoderSession.open(path.join(out, 'onnx/model.onnx')))).toEqual(expected);

    const { AutoModelForCausalLM, env, Tensor: Values } = await import('@huggingface/transformers');
    env.allowRemoteModels = false;
    const model = await AutoModelForCausalLM.from_pretrained(out, { dtype: 'fp32', local_files_only: true });
    try {
      const input_ids = new Values('int64', BigInt64Array.from(ids, BigInt), [1, ids.length]);
      const attention_mask = new Values('int64', new BigInt64Array(ids.length).fill(1n), [1, ids.length]);
      const settings = { max_new_tokens: 6, do_sample: false, eos_token_id: -1 };
      const output = (await model.generate({
        input_ids,
        attention_mask,
        ...settings,
      } as never)) as unknown as {
        tolist(): bigint[][];
      };
      expect(output.tolist()[0]?.slice(ids.length).map(Number)).toEqual(expected);
    } finally {
      await model.dispose();
    }
  });
});
