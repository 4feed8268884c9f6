import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type BuiltRegister, buildRegister, runProgram } from '../test/built.js';
import { genaiModel, optimumModel } from '../test/models.js';

let register: BuiltRegister;
beforeAll(async () => {
  register = await buildRegister();
});
afterAll(() => register[Symbol.dispose]());

/** Generates, and says whose session it was. */
const body = (folder: string) => `
  const model = await AutoModelForCausalLM.from_pretrained(${JSON.stringify(folder)}, { dtype: 'fp32' });
  const inputs = new Tensor('int64', [1n, 40n, 200n], [1, 3]);
  const tokens = await model.generate({ inputs, max_new_tokens: 5, do_sample: false, eos_token_id: -1 });
  console.log(JSON.stringify({
    native: model.sessions.model.handler.constructor.name.endsWith('NativeHandler'),
    tokens: tokens.tolist()[0].map(Number),
  }));
`;
const imports = `import { AutoModelForCausalLM, Tensor } from '@huggingface/transformers';`;
const required = `const { AutoModelForCausalLM, Tensor } = require('@huggingface/transformers');`;

describe('one line in a program', () => {
  let folder: string;
  let expected: number[];
  beforeAll(async () => {
    folder = genaiModel('genai-fp32/llama');
    const stock = (await runProgram(`${imports} ${body(folder)}`)) as { native: boolean; tokens: number[] };
    expect(stock.native).toBe(false);
    expected = stock.tokens;
  });

  const inUse = () => ({ native: true, tokens: expected });

  it('before Transformers.js', async () => {
    expect(await runProgram(`import '${register.url}'; ${imports} ${body(folder)}`)).toEqual(inUse());
  });

  it('after Transformers.js', async () => {
    expect(await runProgram(`${imports} import '${register.url}'; ${body(folder)}`)).toEqual(inUse());
  });

  it('later on, when models are loaded already', async () => {
    const code = `${imports} ${body(folder)} await import('${register.url}'); {${body(folder)}}`;
    expect(await runProgram(code)).toEqual(inUse());
  });

  it('twice', async () => {
    const again = `await import('${register.url}?again');`;
    expect(await runProgram(`import '${register.url}'; ${imports} ${again} ${body(folder)}`)).toEqual(
      inUse(),
    );
  });

  it('in CommonJS', async () => {
    const program = `(async () => { ${body(folder)} })();`;
    const code = `import('${register.url}').then(() => { ${required} ${program} });`;
    expect(await runProgram(code, { commonjs: true })).toEqual(inUse());
  });

  it.runIf('require_module' in process.features)('in CommonJS, with require', async () => {
    const code = `${required} require(${JSON.stringify(register.file)}); (async () => { ${body(folder)} })();`;
    const result = await runProgram(code, { commonjs: true, flags: ['--no-warnings'] });
    expect(result).toEqual(inUse());
  });
});

describe('memory', { timeout: 180_000 }, () => {
  const program = (folder: string, work: string) => `
    import { registerBackend } from '${register.backend}';
    registerBackend({ prefixCache: 2 ** 20 });
    import { readFileSync } from 'node:fs';
    import { setImmediate as turn } from 'node:timers/promises';
    ${imports}
    const load = () => AutoModelForCausalLM.from_pretrained(${JSON.stringify(folder)}, { dtype: 'fp32' });
    const prompt = (n) => new Tensor('int64', Array.from({ length: 60 }, (_, i) => BigInt((i * 7 + n * 31) % 500)), [1, 60]);
    const generate = (model, n, more) =>
      model.generate({ inputs: prompt(n), max_new_tokens: 3, do_sample: false, eos_token_id: -1, ...more });
    async function settled() {
      for (let i = 0; i < 5; i++) { globalThis.gc(); await turn(); await new Promise((r) => setTimeout(r, 20)); }
      // Pages of files come and go as other processes need memory.
      const anonymous = process.platform === 'linux' ? /RssAnon:\\s+(\\d+)/.exec(readFileSync('/proc/self/status', 'utf8')) : null;
      return anonymous === null ? process.memoryUsage().rss / 2 ** 20 : Number(anonymous[1]) / 2 ** 10;
    }
    const sizes = [];
    ${work}
    console.log(JSON.stringify(sizes));
  `;
  const grown = async (folder: string, work: string): Promise<number> => {
    const sizes = (await runProgram(program(folder, work), { flags: ['--expose-gc'] })) as number[];
    return sizes.at(-1)! - sizes[0]!;
  };

  const models = [
    ['attention that appends in place', () => genaiModel('genai-fp32/llama')],
    ['attention of plain operators', () => optimumModel('optimum/llama')],
  ] as const;

  describe.each(models)('%s', (_, make) => {
    it('stays as it is over 50 loads and disposals', async () => {
      const work = `for (let n = 0; n < 60; n++) {
        const model = await load();
        await generate(model, n);
        await model.dispose();
        if (n === 9 || n === 59) sizes.push(await settled());
      }`;
      // A session of this model takes 3 MB and more: 50 of them kept would be 150.
      expect(await grown(make(), work)).toBeLessThan(30);
    });

    it('stays as it is when caches are dropped without a word', async () => {
      // A cache of 62 positions in a buffer for 320 is 480 kB: 300 kept would be 140 MB. The prefix cache gets 1 MB.
      const work = `
        const model = await load();
        for (let n = 0; n < 330; n++) {
          await generate(model, n, { return_dict_in_generate: true });
          if (n === 29 || n === 329) sizes.push(await settled());
        }`;
      expect(await grown(make(), work)).toBeLessThan(60);
    });

    it('of models that are dropped without a word is given back', async () => {
      const work = `for (let n = 0; n < 45; n++) {
        await generate(await load(), n);
        if (n % 5 === 4) await settled();
        if (n === 19 || n === 44) sizes.push(await settled());
      }`;
      expect(await grown(make(), work)).toBeLessThan(30);
    });
  });
});
