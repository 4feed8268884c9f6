import { join } from 'node:path';
import * as transformers from '@huggingface/transformers';
import { beforeEach, describe, expect, it } from 'vitest';
import { freeOnDispose } from './disposal.js';
import { TESTDATA } from './test/temporary.js';
import type { LoadedModel } from './types.js';

const { AutoModelForCausalLM, DynamicCache, StoppingCriteria, Tensor } = transformers;
type Runtime = InstanceType<typeof Tensor>['ort_tensor'];
type Session = { run: (feeds: Record<string, Runtime>) => Promise<Record<string, Runtime>> };

/** Tensors on the pretended device that have been made and not freed. */
let live: number;
let model: LoadedModel;

/**
 * Makes the model's KV cache live on a device, as it does on WebGPU: what `run` gives back are handles that
 * have to be freed. The numbers are kept beside them, and fed to the real session.
 */
function pretendDevice(session: Session): void {
  const run = session.run.bind(session);
  const numbers = new WeakMap<Runtime, Runtime>();
  session.run = async (feeds) => {
    const inputs = Object.entries(feeds).map(([name, tensor]) => {
      if (tensor.location === 'none') throw new Error(`${name} has been freed`);
      return [name, numbers.get(tensor) ?? tensor];
    });
    const outputs = await run(Object.fromEntries(inputs));
    for (const [name, tensor] of Object.entries(outputs)) {
      if (!name.startsWith('present')) continue;
      const handle = (tensor.constructor as unknown as { fromGpuBuffer: FromGpuBuffer }).fromGpuBuffer(
        {},
        { dataType: 'float32', dims: tensor.dims, download: async () => tensor.data, dispose: () => live-- },
      );
      live++;
      numbers.set(handle, tensor);
      outputs[name] = handle;
    }
    return outputs;
  };
}

type FromGpuBuffer = (buffer: object, options: object) => Runtime;

const ids = () => new Tensor('int64', [1n, 5n, 9n, 12n], [1, 4]);
const generation = { max_new_tokens: 6, do_sample: false, eos_token_id: -1 };
/** Two tensors, key and value, for each of the six layers. */
const CACHE = 12;

/** Throws after a few tokens. */
class Failing extends StoppingCriteria {
  #calls = 0;
  override _call(ids: number[][]) {
    if (++this.#calls === 3) throw new Error('the reader went away');
    return ids.map(() => false);
  }
}

beforeEach(async () => {
  live = 0;
  model = await AutoModelForCausalLM.from_pretrained(join(TESTDATA, 'optimum/llama'), { dtype: 'fp32' });
  pretendDevice(model.sessions.model as unknown as Session);
});

describe('Transformers.js alone', () => {
  it('leaves a cache on the device when a generation throws', async () => {
    const options = { inputs: ids(), ...generation, stopping_criteria: new Failing() };
    await expect(model.generate(options)).rejects.toThrow('the reader went away');
    await model.dispose();
    expect(live).toBeGreaterThanOrEqual(CACHE);
  });

  it('leaves a cache on the device that was asked for', async () => {
    await model.generate({ inputs: ids(), ...generation, return_dict_in_generate: true });
    await model.dispose();
    expect(live).toBe(CACHE);
  });

  it('cannot be disposed twice', async () => {
    await model.dispose();
    await expect(model.dispose()).rejects.toThrow('already disposed');
  });
});

describe('freeOnDispose', () => {
  beforeEach(() => freeOnDispose(model));

  it('changes no token', async () => {
    const options = { ...generation, max_new_tokens: 20 };
    const stock = await AutoModelForCausalLM.from_pretrained(join(TESTDATA, 'optimum/llama'));
    const expected = (await stock.generate({ inputs: ids(), ...options })) as InstanceType<typeof Tensor>;
    const got = (await model.generate({ inputs: ids(), ...options })) as InstanceType<typeof Tensor>;
    expect(got.tolist()).toEqual(expected.tolist());
    expect(live).toBe(0);
    await Promise.all([stock.dispose(), model.dispose()]);
  });

  it('frees at once what a generation that throws has made', async () => {
    const options = { inputs: ids(), ...generation, stopping_criteria: new Failing() };
    await expect(model.generate(options)).rejects.toThrow('the reader went away');
    expect(live).toBe(0);
  });

  it('frees only its own, of two generations at the same time', async () => {
    const failing = model.generate({ inputs: ids(), ...generation, stopping_criteria: new Failing() });
    const other = model.generate({ inputs: ids(), ...generation, return_dict_in_generate: true });
    await expect(failing).rejects.toThrow('the reader went away');
    await other;
    expect(live).toBe(CACHE);
  });

  it("leaves a caller's cache usable after a generation that throws", async () => {
    const cache = new DynamicCache();
    const options = { ...generation, past_key_values: cache };
    const failing = model.generate({ inputs: ids(), ...options, stopping_criteria: new Failing() });
    await expect(failing).rejects.toThrow('the reader went away');
    expect(live).toBe(CACHE);
    const seen = cache.get_seq_length();
    const inputs = new Tensor('int64', new Array(seen + 1).fill(3n), [1, seen + 1]);
    await model.generate({ inputs, ...options });
    expect(live).toBe(CACHE);
  });

  it('frees caches that were asked for and forgotten, however many', async () => {
    for (let i = 1; i <= 3; i++) {
      await model.generate({ inputs: ids(), ...generation, return_dict_in_generate: true });
      expect(live).toBe(i * CACHE);
    }
    await model.dispose();
    expect(live).toBe(0);
  });

  it('frees the cache of a generation under way, which then fails with a code', async () => {
    const running = model.generate({ inputs: ids(), ...generation, max_new_tokens: 200 });
    const failed = expect(running).rejects.toMatchObject({ code: 'MODEL_DISPOSED' });
    await new Promise((resolve) => setTimeout(resolve, 20));
    await model.dispose();
    await failed;
    expect(live).toBe(0);
  });

  it('can be disposed twice', async () => {
    await model.dispose();
    await expect(model.dispose()).resolves.toHaveLength(1);
  });
});

describe('on the CPU', () => {
  beforeEach(async () => {
    model = await AutoModelForCausalLM.from_pretrained(join(TESTDATA, 'optimum/llama'), { dtype: 'fp32' });
    freeOnDispose(model);
  });

  it('empties caches, and leaves logits readable', async () => {
    const { logits } = (await model({ input_ids: ids(), attention_mask: ones(4) })) as {
      logits: InstanceType<typeof Tensor>;
    };
    const { past_key_values: cache } = (await model.generate({
      inputs: ids(),
      ...generation,
      return_dict_in_generate: true,
    })) as unknown as { past_key_values: Record<string, InstanceType<typeof Tensor>> };
    await model.dispose();
    expect(Object.values(cache).map(({ location }) => location)).toEqual(new Array(CACHE).fill('none'));
    expect(logits.data).toHaveLength(4 * 512);
  });
});

function ones(length: number) {
  return new Tensor('int64', new Array(length).fill(1n), [1, length]);
}
