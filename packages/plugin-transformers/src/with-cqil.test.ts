import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Plan, Progress } from '@cqil/core';
import { locateModel, rewriteModel } from '@cqil/planner';
import * as transformers from '@huggingface/transformers';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { startHub } from './test/hub.js';
import { copyOfFixture, temporaryFolder } from './test/temporary.js';
import { writeTokenizer } from './test/tokenizer.js';
import type { LoadedModel } from './types.js';
import { withCqil } from './with-cqil.js';

const { env, Tensor, TextStreamer } = transformers;
type Tensor = InstanceType<typeof Tensor>;

const plan: Plan = { version: 1, layers: 6, groups: [{ layers: [2, 3, 4], bypass: 1 }] };
const other: Plan = { version: 1, layers: 6, groups: [{ layers: [1, 2], bypass: 0 }] };

const before = { ...env };
const userCache = process.env.XDG_CACHE_HOME;
const loaded: { dispose(): Promise<unknown> }[] = [];

/** The model's home: `model` is its folder, all caches are below `home`. */
let model: string;

beforeEach(() => {
  model = copyOfFixture('optimum/llama');
  writeTokenizer(model);
  env.cacheDir = temporaryFolder();
  process.env.XDG_CACHE_HOME = temporaryFolder();
});

afterEach(async () => {
  Object.assign(env, before);
  if (userCache === undefined) delete process.env.XDG_CACHE_HOME;
  else process.env.XDG_CACHE_HOME = userCache;
  await Promise.all(loaded.splice(0).map((item) => item.dispose()));
});

function keep<T extends { dispose(): Promise<unknown> }>(item: T): T {
  loaded.push(item);
  return item;
}

const prompt = [1n, 40n, 200n, 17n, 301n, 90n];

/** The logits of a prompt, `[6, 512]` flat: they tell plans apart where tokens may not. */
async function logitsOf(loadedModel: LoadedModel): Promise<number[]> {
  const ids = (values: bigint[]) => new Tensor('int64', values, [1, values.length]);
  const output = await keep(loadedModel)({
    input_ids: ids(prompt),
    attention_mask: ids(prompt.map(() => 1n)),
  });
  return Array.from((output as { logits: Tensor }).logits.data as Float32Array);
}

/** What stock Transformers.js computes from a folder that the planner has written. */
async function referenceLogits(folder: string, by: Plan, dtype: 'fp32' | 'fp16' | 'q8' = 'fp32') {
  const out = join(temporaryFolder(), 'out');
  await rewriteModel(await locateModel(folder, { dtype }), by, out);
  return logitsOf(await transformers.AutoModelForCausalLM.from_pretrained(out, { dtype }));
}

const stockLogits = async (folder: string) =>
  logitsOf(await transformers.AutoModelForCausalLM.from_pretrained(folder, { dtype: 'fp32' }));

function entriesIn(folder: string): string[] {
  return existsSync(join(folder, '.cqil')) ? readdirSync(join(folder, '.cqil')) : [];
}

describe('AutoModelForCausalLM', () => {
  it('loads the model by the plan, exactly as stock Transformers.js loads the rewritten folder', async () => {
    const phases = new Set<string>();
    const onProgress = ({ phase }: Progress) => phases.add(phase);
    const { AutoModelForCausalLM } = withCqil(transformers, { plan, onProgress });
    const logits = await logitsOf(await AutoModelForCausalLM.from_pretrained(model));
    expect(phases).toContain('checking the rewritten graph');
    expect(logits).toEqual(await referenceLogits(model, plan));
    expect(logits).not.toEqual(await stockLogits(model));
  });

  it.each(['fp16', 'q8'] as const)('loads dtype %s', async (dtype) => {
    const { AutoModelForCausalLM } = withCqil(transformers, { plan, verify: false });
    const logits = await logitsOf(await AutoModelForCausalLM.from_pretrained(model, { dtype }));
    expect(logits).toEqual(await referenceLogits(model, plan, dtype));
  });

  it('rewrites once, beside the model, and leaves the model as it is', async () => {
    const files = readdirSync(model, { recursive: true }).sort();
    const { AutoModelForCausalLM } = withCqil(transformers, { plan, verify: false });
    keep(await AutoModelForCausalLM.from_pretrained(model));
    const [key] = entriesIn(model);
    const graph = join(model, '.cqil', key!, 'onnx', 'model.onnx');
    const { ino } = statSync(graph);
    keep(await AutoModelForCausalLM.from_pretrained(model));
    expect(statSync(graph).ino).toBe(ino);
    rmSync(join(model, '.cqil'), { recursive: true });
    expect(readdirSync(model, { recursive: true }).sort()).toEqual(files);
  });

  it('rewrites once for loads at the same time', async () => {
    const { AutoModelForCausalLM } = withCqil(transformers, { plan, verify: false });
    const models = await Promise.all([1, 2, 3].map(() => AutoModelForCausalLM.from_pretrained(model)));
    const [first, ...others] = await Promise.all(models.map(logitsOf));
    for (const logits of others) expect(logits).toEqual(first);
    expect(entriesIn(model)).toHaveLength(1);
  });

  it('rewrites anew when the model changes, or the entry is damaged', async () => {
    const { AutoModelForCausalLM } = withCqil(transformers, { plan, verify: false });
    const logits = await logitsOf(await AutoModelForCausalLM.from_pretrained(model));
    const [key] = entriesIn(model);
    truncateSync(join(model, '.cqil', key!, 'onnx', 'model.onnx'), 1000);
    expect(await logitsOf(await AutoModelForCausalLM.from_pretrained(model))).toEqual(logits);

    renameSync(join(model, 'onnx', 'model_fp16.onnx'), join(model, 'onnx', 'model.onnx'));
    expect(await logitsOf(await AutoModelForCausalLM.from_pretrained(model))).not.toEqual(logits);
    expect(entriesIn(model)).toHaveLength(1);
    expect(entriesIn(model)).not.toContain(key);
  });

  it('uses the cache folder of the user where the model cannot be written to, or one that is named', async () => {
    const expected = await referenceLogits(model, plan);
    writeFileSync(join(model, '.cqil'), 'a file where the folder would be');
    const { AutoModelForCausalLM } = withCqil(transformers, { plan, verify: false });
    expect(await logitsOf(await AutoModelForCausalLM.from_pretrained(model))).toEqual(expected);
    expect(existsSync(join(process.env.XDG_CACHE_HOME!, 'cqil', 'transformers'))).toBe(true);

    const cacheDir = join(temporaryFolder(), 'own');
    const options = { cqil: { cacheDir } };
    expect(await logitsOf(await AutoModelForCausalLM.from_pretrained(model, options))).toEqual(expected);
    expect(readdirSync(cacheDir)).toHaveLength(1);
  });

  it('works through a link to the model, with the cache elsewhere', async () => {
    const link = join(temporaryFolder(), 'link');
    symlinkSync(model, link);
    const { AutoModelForCausalLM } = withCqil(transformers, {
      plan,
      verify: false,
      cacheDir: temporaryFolder(),
    });
    const logits = await logitsOf(await AutoModelForCausalLM.from_pretrained(link));
    expect(logits).toEqual(await referenceLogits(model, plan));
  });

  it('works with a model id below env.localModelPath, and with graphs beside the config', async () => {
    const root = temporaryFolder();
    mkdirSync(join(root, 'org'));
    renameSync(model, join(root, 'org', 'model'));
    model = join(root, 'org', 'model');
    env.localModelPath = root;
    const expected = await referenceLogits(model, plan);
    renameSync(join(model, 'onnx', 'model.onnx'), join(model, 'decoder.onnx'));
    const { AutoModelForCausalLM } = withCqil(transformers, { plan, verify: false });
    const logits = await logitsOf(
      await AutoModelForCausalLM.from_pretrained('org/model', {
        subfolder: '',
        model_file_name: 'decoder',
        local_files_only: true,
      }),
    );
    expect(logits).toEqual(expected);
    expect(entriesIn(model)).toHaveLength(1);
  });

  it('stays a class of Transformers.js', () => {
    const { AutoModelForCausalLM } = withCqil(transformers, { verify: false });
    expect(AutoModelForCausalLM.name).toBe('AutoModelForCausalLM');
    expect(AutoModelForCausalLM.supports('llama')).toBe(true);
    expect(AutoModelForCausalLM.supports('bert')).toBe(false);
  });
});

describe('the plan', () => {
  const { AutoModelForCausalLM } = withCqil(transformers, { verify: false });

  it.each<[string, (file: string) => string | URL | Plan]>([
    ['document', () => plan],
    ['path', (file) => file],
    ['URL', (file) => pathToFileURL(file)],
  ])('can be given as a %s', async (_name, given) => {
    const file = join(temporaryFolder(), 'plan.json');
    writeFileSync(file, JSON.stringify(plan));
    const options = { cqil: { plan: given(file) } };
    const logits = await logitsOf(await AutoModelForCausalLM.from_pretrained(model, options));
    expect(logits).toEqual(await referenceLogits(model, plan));
  });

  it('is the one beside the model by default', async () => {
    const expected = await referenceLogits(model, plan);
    writeFileSync(join(model, 'cqil.plan.json'), JSON.stringify(plan));
    expect(await logitsOf(await AutoModelForCausalLM.from_pretrained(model))).toEqual(expected);
  });

  it('is not needed: without one, and with `cqil: false`, the model is loaded as it is', async () => {
    const expected = await stockLogits(model);
    expect(await logitsOf(await AutoModelForCausalLM.from_pretrained(model))).toEqual(expected);
    const own = withCqil(transformers, { plan, verify: false }).AutoModelForCausalLM;
    expect(await logitsOf(await own.from_pretrained(model, { cqil: false }))).toEqual(expected);
    expect(entriesIn(model)).toEqual([]);
  });

  it('of one model takes the place of the default one', async () => {
    const own = withCqil(transformers, { plan, verify: false }).AutoModelForCausalLM;
    const logits = await logitsOf(await own.from_pretrained(model, { cqil: { plan: other } }));
    expect(logits).toEqual(await referenceLogits(model, other));
  });

  it('without groups changes nothing', async () => {
    const options = { cqil: { plan: { ...plan, groups: [] } } };
    const logits = await logitsOf(await AutoModelForCausalLM.from_pretrained(model, options));
    expect(logits).toEqual(await stockLogits(model));
  });

  it('is applied to a rewritten model no second time', async () => {
    const out = join(temporaryFolder(), 'out');
    await rewriteModel(await locateModel(model, { dtype: 'fp32' }), plan, out);
    const expected = await stockLogits(out);
    expect(await logitsOf(await AutoModelForCausalLM.from_pretrained(out))).toEqual(expected);
    const again = { cqil: { plan: { ...plan, provenance: { tool: 'by hand' } } } };
    expect(await logitsOf(await AutoModelForCausalLM.from_pretrained(out, again))).toEqual(expected);
    expect(entriesIn(out)).toEqual([]);
    await expect(AutoModelForCausalLM.from_pretrained(out, { cqil: { plan: other } })).rejects.toMatchObject({
      code: 'MODEL_ALREADY_PLANNED',
    });
  });
});

describe("pipeline('text-generation')", () => {
  const generation = { max_new_tokens: 12, do_sample: false };

  it('generates, streams and reports as Transformers.js does', async () => {
    const out = join(temporaryFolder(), 'out');
    await rewriteModel(await locateModel(model, { dtype: 'fp32' }), plan, out);
    const stock = keep(await transformers.pipeline('text-generation', out));
    const messages = [{ role: 'user', content: 'Grüße, 世界' }];
    const expected = await stock(messages, generation);

    const progress: transformers.ProgressInfo[] = [];
    const { pipeline } = withCqil(transformers, { plan, verify: false });
    const generator = keep(
      await pipeline('text-generation', model, {
        dtype: 'fp32',
        progress_callback: (info) => progress.push(info),
        session_options: { intraOpNumThreads: 1 },
      }),
    );
    let streamed = '';
    const streamer = new TextStreamer(generator.tokenizer, {
      skip_prompt: true,
      skip_special_tokens: true,
      callback_function: (text) => {
        streamed += text;
      },
    });
    const got = await generator(messages, { ...generation, streamer });
    expect(got).toEqual(expected);
    expect(got[0]?.generated_text.at(-1)?.content).toBe(streamed);

    expect(progress.filter(({ status }) => status === 'ready')).toHaveLength(1);
    const totals = progress.filter((info) => info.status === 'progress_total');
    expect(totals.at(-1)?.progress).toBe(100);
    expect(Object.keys(totals.at(-1)!.files)).toContain('onnx/model.onnx');
    expect(JSON.stringify(progress)).not.toContain('.cqil');
  });

  it('reads the tokenizer and the generation config from the model, not from a copy', async () => {
    const { pipeline } = withCqil(transformers, { plan, verify: false });
    keep(await pipeline('text-generation', model));
    const file = join(model, 'generation_config.json');
    const config = JSON.parse(readFileSync(file, 'utf8'));
    writeFileSync(file, JSON.stringify({ ...config, max_length: 9 }));
    const generator = keep(await pipeline('text-generation', model));
    expect(generator.model.generation_config?.max_length).toBe(9);
  });

  it('is disposed with its model, and twice', async () => {
    const { pipeline } = withCqil(transformers, { plan, verify: false });
    const generator = await pipeline('text-generation', model);
    await generator.dispose();
    await generator.dispose();
    await expect(generator('x')).rejects.toMatchObject({ code: 'MODEL_DISPOSED' });
  });

  it('wants a model beside a plan', async () => {
    const { pipeline } = withCqil(transformers, { plan, verify: false });
    await expect(pipeline('text-generation')).rejects.toMatchObject({ code: 'MODEL_REQUIRED' });
  });
});

describe('everything else', () => {
  it('of the namespace is there, untouched', () => {
    const own = withCqil(transformers, { plan, verify: false });
    for (const [name, value] of Object.entries(transformers)) {
      if (name === 'pipeline' || name === 'AutoModelForCausalLM') continue;
      expect(own[name as keyof typeof own]).toBe(value);
    }
  });

  it('passes through for other tasks, without the option', async () => {
    const pipeline = vi.fn(async () => 'the pipeline');
    const own = withCqil({ ...transformers, pipeline: pipeline as never }, { plan });
    const result: unknown = await own.pipeline('feature-extraction', 'org/model', { dtype: 'q8', cqil: {} });
    expect(result).toBe('the pipeline');
    expect(pipeline.mock.calls).toEqual([['feature-extraction', 'org/model', { dtype: 'q8' }]]);
  });

  it('must be Transformers.js 4', () => {
    const old = { ...transformers, env: { ...env, version: '3.8.1' } };
    expect(() => withCqil(old)).toThrow(expect.objectContaining({ code: 'TRANSFORMERS_UNSUPPORTED' }));
    expect(() => withCqil({} as typeof transformers)).toThrow(
      expect.objectContaining({ code: 'TRANSFORMERS_UNSUPPORTED' }),
    );
  });
});

describe('bad input', () => {
  const { AutoModelForCausalLM } = withCqil(transformers, { plan, verify: false });

  async function codeOf(work: Promise<unknown>): Promise<unknown> {
    const error: unknown = await work.then(
      () => undefined,
      (cause: unknown) => cause,
    );
    return (error as { code?: unknown } | undefined)?.code;
  }

  it('is refused with a code, and nothing is written', async () => {
    const load = (options: Parameters<typeof AutoModelForCausalLM.from_pretrained>[1], folder = model) =>
      codeOf(AutoModelForCausalLM.from_pretrained(folder, options));
    const files = readdirSync(model, { recursive: true }).sort();
    const notJson = join(temporaryFolder(), 'plan.json');
    writeFileSync(notJson, '{"version": 1,');

    expect(await load({ cqil: { plan: { ...plan, layers: 30 } } })).toBe('PLAN_LAYER_COUNT');
    expect(await load({ cqil: { plan: { ...plan, groups: [{ layers: [2, 4], bypass: 1 }] } } })).toBe(
      'PLAN_NOT_NEIGHBOURS',
    );
    expect(await load({ cqil: { plan: './no/plan.json' } })).toBe('PLAN_FILE_MISSING');
    expect(await load({ cqil: { plan: notJson } })).toBe('PLAN_NOT_JSON');
    expect(await load({ dtype: 'q4' })).toBe('MODEL_DTYPE_MISSING');
    expect(readdirSync(model, { recursive: true }).sort()).toEqual(files);

    expect(await load({}, '/no/such/folder')).toBe('MODEL_NOT_FOUND');
    expect(await load({ local_files_only: true }, 'org/model')).toBe('MODEL_NOT_FOUND');
    const empty = temporaryFolder();
    expect(await load({}, empty)).toBe('MODEL_NOT_FOUND');
    writeFileSync(join(empty, 'config.json'), JSON.stringify({ model_type: 'llama' }));
    expect(await load({}, empty)).toBe('MODEL_FOLDER_WITHOUT_MODEL');
    writeFileSync(join(empty, 'config.json'), JSON.stringify({ model_type: 'bert' }));
    expect(await load({}, empty)).toBe('MODEL_NOT_DECODER');
    mkdirSync(join(empty, 'onnx'));
    writeFileSync(join(empty, 'config.json'), JSON.stringify({ model_type: 'llama' }));
    writeFileSync(join(empty, 'onnx', 'model.onnx'), 'this is no graph');
    expect(await load({}, empty)).toMatch(/^ONNX_/);
    expect(existsSync(join(empty, '.cqil'))).toBe(false);
  });

  it('stops when it is told to', async () => {
    const signal = AbortSignal.abort(new Error('enough'));
    await expect(AutoModelForCausalLM.from_pretrained(model, { cqil: { signal } })).rejects.toThrow('enough');
    expect(existsSync(join(model, '.cqil'))).toBe(false);
  });
});

describe('a model on a hub', () => {
  const id = 'org/model';

  it('is downloaded once into the file cache of Transformers.js, and planned there', async () => {
    const expected = await referenceLogits(model, plan);
    const { AutoModelForCausalLM, pipeline } = withCqil(transformers, { plan, verify: false });
    {
      await using hub = await startHub(model);
      env.remoteHost = hub.url;
      const files: string[] = [];
      const options = {
        progress_callback: (info: transformers.ProgressInfo) => {
          if (info.status === 'done') files.push(info.file);
        },
      };
      expect(await logitsOf(await AutoModelForCausalLM.from_pretrained(id, options))).toEqual(expected);
      expect(files).toContain('onnx/model.onnx');
      const generator = keep(await pipeline('text-generation', id));
      expect(generator.tokenizer).toBeDefined();
      expect(hub.served.sort()).toEqual(
        [
          'config.json',
          'generation_config.json',
          'onnx/model.onnx',
          'tokenizer.json',
          'tokenizer_config.json',
        ].map((file) => `org/model/resolve/main/${file}`),
      );
    }
    // The hub is gone, and all that is needed is here.
    expect(await logitsOf(await AutoModelForCausalLM.from_pretrained(id))).toEqual(expected);
    keep(await pipeline('text-generation', id));
    expect(entriesIn(join(env.cacheDir!, 'org', 'model'))).toHaveLength(1);
  });

  it('is planned at its revision, in the cache folder that is named', async () => {
    await using hub = await startHub(model);
    env.remoteHost = hub.url;
    const cache_dir = temporaryFolder();
    const { AutoModelForCausalLM } = withCqil(transformers, { plan, verify: false });
    const options = { revision: 'v2', cache_dir };
    const logits = await logitsOf(await AutoModelForCausalLM.from_pretrained(id, options));
    expect(logits).toEqual(await referenceLogits(model, plan));
    expect(entriesIn(join(cache_dir, 'org', 'model', 'v2'))).toHaveLength(1);
    expect(hub.served.every((path) => path.startsWith('org/model/resolve/v2/'))).toBe(true);
  });

  it('may bring its plan', async () => {
    const expected = await referenceLogits(model, plan);
    writeFileSync(join(model, 'cqil.plan.json'), JSON.stringify(plan));
    await using hub = await startHub(model);
    env.remoteHost = hub.url;
    const { AutoModelForCausalLM } = withCqil(transformers, { verify: false });
    expect(await logitsOf(await AutoModelForCausalLM.from_pretrained(id))).toEqual(expected);
  });

  it('without a plan is loaded as it is, and asked for its plan once', async () => {
    const expected = await stockLogits(model);
    await using hub = await startHub(model);
    env.remoteHost = hub.url;
    const { AutoModelForCausalLM } = withCqil(transformers, { verify: false });
    for (let i = 0; i < 2; i++) {
      expect(await logitsOf(await AutoModelForCausalLM.from_pretrained(id))).toEqual(expected);
    }
    expect(hub.asked.filter((path) => path.endsWith('cqil.plan.json'))).toHaveLength(1);
  });

  it('that is not there, or lacks the graph, is refused with a code', async () => {
    await using hub = await startHub(model);
    env.remoteHost = hub.url;
    const { AutoModelForCausalLM } = withCqil(transformers, { plan, verify: false });
    const failure = { code: 'MODEL_NOT_FOUND' };
    await expect(AutoModelForCausalLM.from_pretrained('org/none')).rejects.toMatchObject(failure);
    await expect(AutoModelForCausalLM.from_pretrained(id, { dtype: 'q4' })).rejects.toMatchObject(failure);
    env.useFSCache = false;
    await expect(AutoModelForCausalLM.from_pretrained(id)).rejects.toMatchObject({
      code: 'HUB_CACHE_DISABLED',
    });
  });
});
