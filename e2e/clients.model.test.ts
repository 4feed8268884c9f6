import { spawn } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { tinyModel } from '../packages/plugin-openai/src/test/tiny-model.js';
import { python, setupPython } from '../tools/scripts/setup-python.mjs';
import { testModel } from '../tools/src/test-model.js';
import { loaded, serve, stopAll } from './serving.js';

/** One check that Python ran. */
interface Check {
  readonly name: string;
  readonly outcome: 'failed' | 'passed' | 'skipped';
  /** What it says of its failure. */
  readonly text: string;
}

const CHECKS = fileURLToPath(new URL('../tools/conformance', import.meta.url));
const KEY = 'a-key';
/** ChatML with tools, which the model's own template leaves out; calls as in Hermes. */
const TOOL_TEMPLATE = [
  '{% if tools %}<|im_start|>system\nCall <tool_call>{{ tools | tojson }}</tool_call><|im_end|>\n{% endif %}',
  "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}",
  '{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}<|im_end|>\n{% endfor %}',
  '{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}',
].join('');

const dir = mkdtempSync(join(tmpdir(), 'cqil-clients-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** The folders to serve: the real model in float32, in 4 bits, and so with tools; and one of random weights. */
function modelFolders() {
  const folders = {
    exact: testModel('fp32'),
    real: testModel('q4'),
    tools: join(dir, 'tools'),
    tiny: join(dir, 'tiny'),
  };
  cpSync(folders.real, folders.tools, { recursive: true });
  // Requests at random are longer than what this one was made for; it does not matter what it says.
  using tiny = tinyModel({ max_position_embeddings: 8192 });
  cpSync(tiny.folder, folders.tiny, { recursive: true });
  for (const other of ['model_fp16.onnx', 'model_quantized.onnx']) rmSync(join(folders.tiny, 'onnx', other));
  for (const folder of [folders.tools, folders.tiny]) {
    const file = join(folder, 'tokenizer_config.json');
    const config = JSON.parse(readFileSync(file, 'utf8')) as object;
    writeFileSync(file, JSON.stringify({ ...config, chat_template: TOOL_TEMPLATE }));
  }
  return folders;
}

/** Runs all checks of `tools/conformance` against a server of their own. */
async function checked(): Promise<readonly Check[]> {
  await setupPython();
  const folders = modelFolders();
  const words = [...Object.values(folders), '--no-variants', '--no-page'];
  const { url, stderr } = await serve(words, { CQIL_API_KEYS: KEY });
  try {
    await loaded(url);
    const results = join(dir, 'results.json');
    const models = Object.fromEntries(
      Object.entries(folders).map(([name, folder]) => [name, basename(folder)]),
    );
    const output = await pytest({ url, key: KEY, models, exactFolder: folders.exact, results });
    expect(existsSync(results), output).toBe(true);
    const all = JSON.parse(readFileSync(results, 'utf8')) as Check[];
    expect(all.length, output).toBeGreaterThan(0);
    return [...all, unshaken(stderr())];
  } finally {
    await stopAll();
  }
}

/** What the server says of itself: whatever was asked of it, no model failed. */
function unshaken(log: string): Check {
  const faults = log.split('\n').filter((line) => line.includes('"msg":"fault in a model"'));
  return {
    name: 'the server has no fault to log',
    outcome: faults.length === 0 ? 'passed' : 'failed',
    text: faults.join('\n'),
  };
}

/** What pytest says, which is of use where it did not come to write results; `CQIL_CLIENTS_OUTPUT` shows it at once. */
function pytest(given: object): Promise<string> {
  const env = {
    ...process.env,
    CQIL_CLIENTS: JSON.stringify(given),
    // Nothing is to be left in the tree, or taken from a network.
    HF_HOME: join(dir, 'hf'),
    HYPOTHESIS_STORAGE_DIRECTORY: join(dir, 'hypothesis'),
    PYTHONPYCACHEPREFIX: join(dirname(dirname(dirname(python))), 'bytecode'),
    NO_PROXY: '127.0.0.1',
  };
  return new Promise((resolve, reject) => {
    const words = [
      '-m',
      'pytest',
      '-p',
      'no:cacheprovider',
      '--tb=short',
      '--no-header',
      '--durations=10',
      '.',
    ];
    const child = spawn(python, words, { cwd: CHECKS, env, stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        output += text;
      });
    }
    child.on('error', reject);
    child.on('close', () => {
      if (process.env.CQIL_CLIENTS_OUTPUT !== undefined) process.stderr.write(output);
      resolve(output);
    });
  });
}

const checks = await checked();

describe('clients in Python', () => {
  for (const { name, outcome, text } of checks) {
    it(name, () => expect(outcome, text).toBe('passed'));
  }
});
