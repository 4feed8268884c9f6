import { InPlaceKeyValues, NativeSession } from '@cqil/runtime-gpu';
import * as transformers from '@huggingface/transformers';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { genaiModel, optimumModel } from '../test/models.js';
import type { LoadedModel } from '../types.js';
import { type BackendOptions, registerBackend } from './register.js';

const { AutoModelForCausalLM, DynamicCache, pipeline, random, Tensor, TextStreamer } = transformers;
type Tensor = InstanceType<typeof Tensor>;
type Cache = InstanceType<typeof DynamicCache>;

const loaded: { dispose(): Promise<unknown> }[] = [];

afterEach(async () => {
  vi.restoreAllMocks();
  await Promise.all(loaded.splice(0).map((item) => item.dispose()));
});

function keep<T extends { dispose(): Promise<unknown> }>(item: T): T {
  loaded.push(item);
  return item;
}

/** Loads with the backend in use, and says so where it was not. */
async function withBackend<T>(load: () => Promise<T>, options: BackendOptions = {}): Promise<T> {
  const backend = registerBackend(options);
  const result = await load();
  expect(backend.sessions).toBe(1);
  backend.unregister();
  return result;
}

const ids = (...rows: number[][]) =>
  new Tensor('int64', BigInt64Array.from(rows.flat(), BigInt), [rows.length, rows[0]!.length]);
const ones = (rows: number, width: number) =>
  new Tensor('int64', new BigInt64Array(rows * width).fill(1n), [rows, width]);
const listOf = (output: unknown) => (output as Tensor).tolist() as bigint[][];
const range = (length: number, from = 3) => Array.from({ length }, (_, i) => 3 + ((from + i * 37) % 500));

const GREEDY = { max_new_tokens: 24, do_sample: false, eos_token_id: -1 };
const MESSAGES = [{ role: 'user', content: 'Grüße, 世界' }];

interface Outputs extends Record<string, Tensor> {
  readonly logits: Tensor;
}

/** The cache in a run's outputs, under the names of the inputs. */
function pastsOf(outputs: Outputs): Record<string, Tensor> {
  return Object.fromEntries(
    Object.entries(outputs)
      .filter(([name]) => name.startsWith('present'))
      .map(([name, tensor]) => [name.replace('present', 'past_key_values'), tensor]),
  );
}

function forward(model: LoadedModel, input_ids: Tensor, past?: Record<string, Tensor>): Promise<Outputs> {
  const [rows, width] = input_ids.dims as [number, number];
  const before = past === undefined ? 0 : Object.values(past)[0]!.dims.at(-2)!;
  return model.forward({
    input_ids,
    attention_mask: ones(rows, before + width),
    ...(past === undefined ? {} : { past_key_values: new DynamicCache(past) }),
  }) as Promise<Outputs>;
}

const MODELS = {
  'attention that appends in place': () => genaiModel('genai-fp32/llama'),
  'attention that appends in place, 4 bits': () => genaiModel('genai-int4/llama'),
  'attention of plain operators': () => optimumModel('optimum/llama'),
};

describe.each(Object.entries(MODELS))('%s', (_, make) => {
  let folder: string;
  let stock: LoadedModel;
  let ours: LoadedModel;

  beforeAll(async () => {
    folder = make();
    const load = () => AutoModelForCausalLM.from_pretrained(folder, { dtype: 'fp32' });
    stock = await load();
    ours = await withBackend(load, { prefixCache: false });
  });
  afterAll(() => Promise.all([stock.dispose(), ours.dispose()]));

  it('the pipeline gives the same text, in the same pieces', async () => {
    const load = () => pipeline('text-generation', folder, { dtype: 'fp32' });
    const generators = [keep(await load()), keep(await withBackend(load))];
    const texts = [];
    for (const generator of generators) {
      const pieces: string[] = [];
      const streamer = new TextStreamer(generator.tokenizer, {
        skip_prompt: true,
        callback_function: (piece: string) => pieces.push(piece),
        token_callback_function: (tokens: bigint[]) => pieces.push(String(tokens)),
      });
      const result = await generator(MESSAGES, { ...GREEDY, streamer });
      texts.push({ result, pieces });
    }
    expect(texts[1]).toEqual(texts[0]);
    expect(texts[0]!.pieces.length).toBeGreaterThan(GREEDY.max_new_tokens);
  });

  it('greedy, with beams, and sampling with a seed, the tokens are the same', async () => {
    const settings = [
      { ...GREEDY, max_new_tokens: 60 },
      { ...GREEDY, num_beams: 3, num_return_sequences: 1 },
      { ...GREEDY, do_sample: true, top_k: 20, temperature: 1.5 },
    ];
    for (const options of settings) {
      const outputs: bigint[][][] = [];
      for (const model of [stock, ours]) {
        random.seed(7);
        outputs.push(listOf(await model.generate({ inputs: ids(range(5)), ...options })));
      }
      expect(outputs[1]).toEqual(outputs[0]);
    }
  });

  it('the logits of every position are the same, step by step', async () => {
    let pasts: (Record<string, Tensor> | undefined)[] = [undefined, undefined];
    for (const step of [range(6), [9], [11, 12, 13], [14]]) {
      const outputs = [await forward(stock, ids(step), pasts[0]), await forward(ours, ids(step), pasts[1])];
      expect(outputs[1]!.logits.dims).toEqual([1, step.length, 512]);
      expect(outputs[1]!.logits.tolist()).toEqual(outputs[0]!.logits.tolist());
      pasts = outputs.map((output) => pastsOf(output));
    }
    for (const [name, tensor] of Object.entries(pasts[0]!)) {
      const own = pasts[1]![name]!;
      expect([own.dims, own.type, own.size, own.location]).toEqual([
        tensor.dims,
        tensor.type,
        tensor.size,
        tensor.location,
      ]);
      expect(own.data).toEqual(tensor.data);
    }
  });

  it('a batch of equal length gives the same', async () => {
    const inputs = ids(range(5), range(5, 90));
    const options = { inputs, attention_mask: ones(2, 5), ...GREEDY };
    expect(listOf(await ours.generate(options))).toEqual(listOf(await stock.generate(options)));
  });

  it('a cache of the program goes from turn to turn', async () => {
    const answers = [];
    for (const model of [stock, ours]) {
      const past_key_values = new DynamicCache();
      let tokens = range(6);
      const turns: number[][] = [];
      for (let turn = 0; turn < 3; turn++) {
        const result = await model.generate({
          inputs: ids(tokens),
          ...GREEDY,
          max_new_tokens: 7,
          past_key_values,
        });
        const all = listOf(result)[0]!.map(Number);
        turns.push(all);
        tokens = [...all, ...range(4, 50 + turn)];
      }
      answers.push({ turns, length: past_key_values.get_seq_length() });
    }
    expect(answers[1]).toEqual(answers[0]);
  });

  it('one cache is continued twice, by objects of the program', async () => {
    const answers = [];
    for (const model of [stock, ours]) {
      const past = pastsOf(await forward(model, ids(range(6))));
      const results = [];
      for (const next of [7, 8]) {
        // The same tensors in another cache object: Transformers.js frees those on a device when it goes on.
        const past_key_values = new DynamicCache(past);
        const inputs = ids([...range(6), next]);
        results.push(listOf(await model.generate({ inputs, ...GREEDY, past_key_values })));
      }
      results.push((await forward(model, ids([9]), past)).logits.tolist());
      answers.push(results);
    }
    expect(answers[1]).toEqual(answers[0]);
  });

  it('what the program makes of a cache is what counts', async () => {
    const changes: ((cache: Record<string, Tensor>) => Record<string, Tensor>)[] = [
      // Cut to its first positions, and moved to other objects.
      (cache) => mapped(cache, (tensor) => tensor.slice(null, null, [0, 4], null)),
      (cache) => mapped(cache, (tensor) => tensor.clone()),
      // Changed in place.
      (cache) => mapped(cache, (tensor) => tensor.mul_(0.5)),
      // Swapped.
      (cache) => ({ ...cache, 'past_key_values.0.key': cache['past_key_values.1.key']! }),
      // Looked at.
      (cache) => mapped(cache, (tensor) => (tensor.data.length > 0 ? tensor : tensor.clone())),
      // Of two caches.
      (cache) => ({ ...cache, 'past_key_values.2.value': cache['past_key_values.2.value']!.clone() }),
    ];
    for (const change of changes) {
      const answers = [];
      for (const model of [stock, ours]) {
        const changed = change(pastsOf(await forward(model, ids(range(6)))));
        const first = await forward(model, ids([7]), changed);
        const second = await forward(model, ids([8, 9]), pastsOf(first));
        answers.push([first.logits.tolist(), second.logits.tolist()]);
      }
      expect(answers[1]).toEqual(answers[0]);
    }
  });

  it('rows of a cache change places', async () => {
    const answers = [];
    for (const model of [stock, ours]) {
      const past = pastsOf(await forward(model, ids(range(6), range(6, 70))));
      const swapped = mapped(past, (tensor) =>
        transformers.cat([tensor.slice([1, 2]), tensor.slice([0, 1])], 0),
      );
      const first = await forward(model, ids([7], [8]), swapped);
      answers.push([
        first.logits.tolist(),
        (await forward(model, ids([9], [9]), pastsOf(first))).logits.tolist(),
      ]);
    }
    expect(answers[1]).toEqual(answers[0]);
  });

  it('a disposed tensor cannot be used, and others can', async () => {
    const outputs = await forward(ours, ids(range(6)));
    const past = pastsOf(outputs);
    const tensor = past['past_key_values.0.key']!;
    tensor.dispose();
    expect(tensor.location).toBe('none');
    expect(() => tensor.data).toThrow('The tensor is disposed.');
    vi.spyOn(console, 'error').mockImplementation(() => {});
    await expect(forward(ours, ids([7]), past)).rejects.toThrow('The tensor is disposed.');
    expect(past['past_key_values.0.value']!.data.length).toBe(2 * 6 * 16);
    expect(outputs.logits.data.length).toBe(6 * 512);
  });

  it('tensors live longer than their model', async () => {
    const load = () => AutoModelForCausalLM.from_pretrained(folder, { dtype: 'fp32' });
    const model = await withBackend(load);
    const expected = pastsOf(await forward(stock, ids(range(6))));
    const past = pastsOf(await forward(model, ids(range(6))));
    await model.dispose();
    for (const [name, tensor] of Object.entries(past)) {
      expect(tensor.data).toEqual(expected[name]!.data);
      expect(await tensor.ort_tensor.getData()).toEqual(expected[name]!.data);
      expect(tensor.ort_tensor.reshape([2, 6 * 16]).data).toEqual(expected[name]!.data);
    }
  });

  it('two generations at the same time do not disturb each other', async () => {
    const prompts = [range(6), range(6, 80)];
    const run = (model: LoadedModel, prompt: number[]) => model.generate({ inputs: ids(prompt), ...GREEDY });
    const expected = [];
    for (const prompt of prompts) expected.push(listOf(await run(stock, prompt)));
    const got = await Promise.all(prompts.map((prompt) => run(ours, prompt)));
    expect(got.map(listOf)).toEqual(expected);
  });
});

function mapped(cache: Record<string, Tensor>, change: (tensor: Tensor) => Tensor): Record<string, Tensor> {
  return Object.fromEntries(Object.entries(cache).map(([name, tensor]) => [name, change(tensor)]));
}

describe('a cache is written in place', () => {
  const appendsOf = async (folder: string, work: (model: LoadedModel) => Promise<unknown>) => {
    const load = () => AutoModelForCausalLM.from_pretrained(folder, { dtype: 'fp32' });
    const model = keep(await withBackend(load));
    const append = vi.spyOn(InPlaceKeyValues.prototype, 'append');
    await work(model);
    return append.mock.calls.length;
  };
  const generation = (model: LoadedModel) => model.generate({ inputs: ids(range(6)), ...GREEDY });

  it('where the graph does that, at every step', async () => {
    expect(await appendsOf(genaiModel('genai-int4/llama'), generation)).toBe(GREEDY.max_new_tokens);
    vi.restoreAllMocks();
    expect(await appendsOf(optimumModel('optimum/llama'), generation)).toBe(0);
  });

  it('of tensors of the program, too', async () => {
    const work = async (model: LoadedModel) => {
      const first = pastsOf(await forward(model, ids(range(6))));
      const cut = mapped(first, (tensor) => tensor.slice(null, null, [0, 4], null));
      await forward(model, ids([8]), pastsOf(await forward(model, ids([7]), cut)));
    };
    expect(await appendsOf(genaiModel('genai-fp32/llama'), work)).toBe(3);
  });

  it('of a batch from its start and token by token, and not with padding', async () => {
    const batch = (model: LoadedModel, attention_mask: Tensor) =>
      model.generate({ inputs: ids(range(5), range(5, 90)), attention_mask, ...GREEDY, max_new_tokens: 3 });
    const padded = ones(2, 5);
    (padded.data as BigInt64Array)[0] = 0n;
    const folder = genaiModel('genai-fp32/llama');
    expect(await appendsOf(folder, (model) => batch(model, ones(2, 5)))).toBe(3);
    vi.restoreAllMocks();
    expect(await appendsOf(folder, (model) => batch(model, padded))).toBe(0);
  });
});

describe('prompts padded on the left', () => {
  it.each(Object.entries(MODELS))('give what they always gave: %s', async (_, make) => {
    const folder = make();
    const load = () => pipeline('text-generation', folder, { dtype: 'fp32' });
    const [stock, ours] = [keep(await load()), keep(await withBackend(load))];
    const prompts = ['A much longer text than the other', 'short'];
    const options = { ...GREEDY, return_full_text: false };
    expect(await ours(prompts, options)).toEqual(await stock(prompts, options));
  });
});

describe('other dtypes and families', () => {
  it.each([
    ['optimum/llama', 'fp16'],
    ['optimum/llama', 'q8'],
    ['optimum/gpt2', 'fp32'],
    ['optimum/phi3', 'fp32'],
    ['optimum/qwen2', 'fp32'],
    ['families/bloom/optimum', 'fp32'],
    ['families/gemma3_text/optimum', 'fp32'],
    ['families/opt/optimum', 'fp32'],
    ['families/qwen3/optimum', 'fp32'],
  ] as const)('%s in %s gives the same tokens', async (name, dtype) => {
    const folder = optimumModel(name);
    const load = () => AutoModelForCausalLM.from_pretrained(folder, { dtype });
    const [stock, ours] = [keep(await load()), keep(await withBackend(load))];
    const options = { inputs: ids([1, 20, 30, 7]), ...GREEDY };
    expect(listOf(await ours.generate(options))).toEqual(listOf(await stock.generate(options)));
  });
});

describe.each([
  ['attention that appends in place', () => genaiModel('genai-fp32/llama')],
  ['attention of plain operators', () => optimumModel('optimum/llama')],
] as const)('a prompt that begins like an earlier one: %s', (_, make) => {
  /** Tokens that each run was given. */
  function watch(): () => number[] {
    const execute = vi.spyOn(NativeSession.prototype, 'execute');
    return () => {
      const counts = execute.mock.calls.map(([feeds]) => feeds.input_ids!.dims[1]!);
      execute.mockClear();
      return counts;
    };
  }

  let folder: string;
  let stock: LoadedModel;
  beforeAll(async () => {
    folder = make();
    stock = await AutoModelForCausalLM.from_pretrained(folder, { dtype: 'fp32' });
  });
  afterAll(() => stock.dispose());

  const run = async (model: LoadedModel, prompt: number[], count = 4) => {
    const inputs = ids(prompt);
    return listOf(await model.generate({ inputs, ...GREEDY, max_new_tokens: count }))[0]!.map(Number);
  };

  it('is computed from where they part', async () => {
    const backend = registerBackend();
    const ours = keep(await AutoModelForCausalLM.from_pretrained(folder, { dtype: 'fp32' }));
    const counts = watch();
    const first = await run(ours, range(40));
    expect(counts()).toEqual([40, 1, 1, 1]);
    // A second turn: what was answered is in the cache, but for its last token.
    const second = [...first, ...range(5, 200)];
    const expected = await run(stock, second);
    expect(await run(ours, second)).toEqual(expected);
    expect(counts()).toEqual([6, 1, 1, 1]);
    // Another answer to the first prompt, and the same prompt again.
    for (const prompt of [[...range(40), 444, 445, 446], [...range(40), 444, 445, 446], range(40)]) {
      const wanted = await run(stock, prompt);
      expect(await run(ours, prompt)).toEqual(wanted);
    }
    expect(counts()).toEqual([3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
    backend.clearPrefixes();
    await run(ours, range(40), 1);
    expect(counts()).toEqual([40]);
    backend.unregister();
  });

  it('is computed as a whole where all its logits may be read', async () => {
    const ours = keep(
      await withBackend(() => AutoModelForCausalLM.from_pretrained(folder, { dtype: 'fp32' })),
    );
    await run(ours, range(40));
    const counts = watch();
    const got = await forward(ours, ids(range(40)));
    expect(counts()).toEqual([40]);
    expect(got.logits.dims).toEqual([1, 40, 512]);
    const wanted = await forward(stock, ids(range(40)));
    expect(got.logits.tolist()).toEqual(wanted.logits.tolist());
  });

  it('is computed as a whole where that is wanted, or where padding is in it', async () => {
    const ours = keep(
      await withBackend(() => AutoModelForCausalLM.from_pretrained(folder, { dtype: 'fp32' }), {
        prefixCache: false,
      }),
    );
    const counts = watch();
    await run(ours, range(40), 1);
    await run(ours, range(40), 1);
    expect(counts()).toEqual([40, 40]);
    const padding = keep(
      await withBackend(() => AutoModelForCausalLM.from_pretrained(folder, { dtype: 'fp32' })),
    );
    await run(padding, range(40), 1);
    counts();
    const attention_mask = ones(1, 40);
    (attention_mask.data as BigInt64Array)[0] = 0n;
    await padding.generate({ inputs: ids(range(40)), attention_mask, ...GREEDY, max_new_tokens: 1 });
    expect(counts()).toEqual([40]);
  });

  it('does not share what a program has changed', async () => {
    const ours = keep(
      await withBackend(() => AutoModelForCausalLM.from_pretrained(folder, { dtype: 'fp32' })),
    );
    const past = pastsOf(await forward(ours, ids(range(40))));
    for (const tensor of Object.values(past)) tensor.mul_(0);
    const wanted = await run(stock, [...range(40), 5]);
    expect(await run(ours, [...range(40), 5])).toEqual(wanted);
    // And what follows a changed cache is not what follows the tokens.
    const more = await forward(ours, ids([5]), past);
    await forward(ours, ids([6]), pastsOf(more));
    expect(await run(ours, [...range(40), 5, 6, 7])).toEqual(await run(stock, [...range(40), 5, 6, 7]));
  });

  it('leaves a cache that the program holds as it is', async () => {
    const ours = keep(
      await withBackend(() => AutoModelForCausalLM.from_pretrained(folder, { dtype: 'fp32' })),
    );
    const { past_key_values } = (await ours.generate({
      inputs: ids(range(40)),
      ...GREEDY,
      return_dict_in_generate: true,
    })) as unknown as { past_key_values: Cache };
    const expected = await run(stock, [...range(20), ...range(9, 300)]);
    expect(await run(ours, [...range(20), ...range(9, 300)])).toEqual(expected);
    const tensor = (past_key_values as unknown as Record<string, Tensor>)['past_key_values.0.key']!;
    const all = await forward(stock, ids(await run(stock, range(40), 24)));
    const want = (all as Record<string, Tensor>)['present.0.key']!.slice(null, null, [0, 63], null).data;
    const got = tensor.data as Float32Array;
    expect(got.length).toBe(want.length);
    for (const [i, value] of got.entries()) expect(value).toBeCloseTo((want as Float32Array)[i]!, 4);
  });
});
