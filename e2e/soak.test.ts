import { spawn } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { tinyModel } from '../packages/plugin-openai/src/test/tiny-model.js';
import { cqil, testdata } from './run.js';

const SOAK = fileURLToPath(new URL('../tools/bench/soak.mjs', import.meta.url));
let dir: string;
const at = (name: string) => join(dir, name);

beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'cqil-soak-'));
  using tiny = tinyModel();
  for (const name of ['one', 'two']) {
    cpSync(tiny.folder, at(name), { recursive: true });
    // In operators that take several sequences at a time.
    rmSync(join(at(name), 'onnx'), { recursive: true });
    cpSync(testdata('genai-fp32/llama'), join(at(name), 'onnx'), { recursive: true });
    rmSync(join(at(name), 'onnx/genai_config.json'));
  }
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** The short forms: nothing is measured here, so that what else the machine does fails no test. */
async function soak(...args: string[]): Promise<{ faults: string[]; numbers: Record<string, unknown> }> {
  const child = spawn(process.execPath, [SOAK, ...args, '--json', at('soak.json')], { stdio: 'ignore' });
  await new Promise((resolve) => child.once('exit', resolve));
  return JSON.parse(readFileSync(at('soak.json'), 'utf8'));
}

describe('the soak', () => {
  it('of the server loses nothing and says what the engine says', async () => {
    const requests = ['--clients', '40', '--requests', '160', '--drop', '0.2'];
    const { faults, numbers } = await soak(at('one'), ...requests, '--health-ms', '2000', '--growth', '0.5');
    expect(faults).toEqual([]);
    const { answered, dropped, refusals, tie, rounding } = numbers;
    expect(Number(answered) + Number(dropped)).toBe(160);
    expect(numbers.same).toBeGreaterThan(50);
    // There were more clients than places, and those who were refused came again.
    expect(refusals).toBeGreaterThan(0);
    expect(Number(tie) + Number(rounding)).toBeLessThan(5);
  });

  it('of the engine leaves nothing behind', async () => {
    const { faults, numbers } = await soak('--generations', '400', '--growth', '0.5');
    expect(faults).toEqual([]);
    for (const count of ['whole', 'aborted', 'left']) expect(numbers[count]).toBeGreaterThan(20);
  });
});

describe('serve --memory', () => {
  it('opens what is asked for, in turn, and refuses what can never fit', async () => {
    const refused = await cqil(['serve', at('one'), '--memory', '1MiB', '--port', '0', '--json']);
    expect(refused.code).toBe(2);
    expect(JSON.parse(refused.stdout)).toMatchObject({ error: { code: 'MODEL_TOO_LARGE' } });
    const found = /about (\d+)MiB/.exec(refused.stdout)?.[1];
    const wrong = await cqil(['serve', at('one'), '--memory', 'much', '--json']);
    expect(JSON.parse(wrong.stdout)).toMatchObject({ error: { code: 'OPTION_INVALID' } });

    let stderr = '';
    let stop = () => {};
    const args = ['serve', at('one'), at('two'), '--no-variants', '--metrics', '--port', '0'];
    const ended = cqil([...args, '--memory', `${found}MiB`], {
      onStart(child) {
        child.stderr?.on('data', (more: string) => {
          stderr += more;
        });
        stop = () => child.kill('SIGTERM');
      },
    });
    const listening = () => /"url":"([^"]+)".*"msg":"listening"/.exec(stderr)?.[1];
    await expect.poll(listening, { timeout: 60_000 }).toBeDefined();
    const url = listening()!;
    expect((await fetch(`${url}/health`)).status).toBe(200);
    const texts: string[] = [];
    for (const model of ['one', 'two', 'one', 'two']) {
      const body = JSON.stringify({ model, prompt: 'Once', max_tokens: 8, temperature: 0 });
      const response = await fetch(`${url}/v1/completions`, { method: 'POST', body });
      const answer = (await response.json()) as { choices: { text: string }[]; timings: object };
      expect(answer.timings).toMatchObject({ predicted_n: 8 });
      texts.push(answer.choices[0]!.text);
    }
    expect(new Set(texts).size).toBe(1);
    const metrics = await (await fetch(`${url}/metrics`)).text();
    const loads = [...metrics.matchAll(/^cqil_model_loads\{model="\w+"\} (\d+)$/gm)].map(([, n]) => n);
    expect(loads).toEqual(['2', '2']);
    stop();
    expect((await ended).code).toBe(0);
  });
});
