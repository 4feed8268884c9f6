// @ts-check
/**
 * What `npm start`, `npm test` and the CI share. Runs before anything is installed: nothing but node here.
 */
import { spawn } from 'node:child_process';
import { existsSync, statSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = resolve(dirname(fileURLToPath(import.meta.url)), '../..');

/** Downloads, imported models and results; `CQIL_CACHE` puts it elsewhere. */
export const cache = resolve(root, process.env.CQIL_CACHE || '.cache');
export const models = join(cache, 'models');

/** The command line as it was built. */
export const cli = join(root, 'packages/cli/dist/cli.js');

const began = performance.now();
let current = 0;

/**
 * Runs one step of a script: says that it begins, that it is still at it, and how long it took.
 * @template T
 * @param {string} title
 * @param {() => Promise<T>} work
 * @returns {Promise<T>}
 */
export async function step(title, work) {
  current += 1;
  const start = performance.now();
  say(`── ${current}. ${title}`);
  const result = await work();
  say(`   done in ${seconds(start)} (${seconds(began)} in all)\n`);
  return result;
}

/** @param {string} line */
export function say(line) {
  process.stderr.write(`${line}\n`);
}

/** @param {number} start */
function seconds(start) {
  return `${((performance.now() - start) / 1000).toFixed(1)} s`;
}

/**
 * @typedef {{
 *   env?: Record<string, string>, capture?: boolean, allowFailure?: boolean, silent?: boolean, heartbeat?: string,
 * }} RunOptions
 */

/**
 * Runs a program in the repository's root. Its stderr goes to ours; so does its stdout, unless it is captured.
 * @param {string} command
 * @param {readonly string[]} args
 * @param {RunOptions} [options]
 * @returns {Promise<{ code: number, stdout: string }>}
 */
export function run(command, args, options = {}) {
  const pulse = options.heartbeat === undefined ? undefined : heartbeat(options.heartbeat, performance.now());
  return new Promise((succeed, fail) => {
    const child = spawn(command, args, {
      cwd: root,
      env: { ...process.env, ...options.env },
      stdio: ['ignore', options.capture ? 'pipe' : options.silent ? 'ignore' : 2, 2],
    });
    let stdout = '';
    child.stdout?.setEncoding('utf8').on('data', (/** @type {string} */ text) => {
      stdout += text;
    });
    child.on('error', fail);
    child.on('close', (code, signal) => {
      if (signal !== null) process.exit(128 + (signal === 'SIGINT' ? 2 : 15));
      if (code === 0 || options.allowFailure) succeed({ code: code ?? 1, stdout });
      else fail(new StepFailure(`${[command, ...args].join(' ')} ended with exit code ${code}`));
    });
  }).finally(() => clearInterval(pulse));
}

/** Some programs say nothing for long; @param {string} what @param {number} start */
function heartbeat(what, start) {
  return setInterval(() => say(`   ${what}, ${seconds(start)} so far`), 10_000);
}

/** A step that did not work, and has said itself why. */
export class StepFailure extends Error {}

/** Runs the built command line; @param {readonly string[]} args @param {RunOptions} [options] */
export function cqil(args, options) {
  return run(process.execPath, [cli, ...args], options);
}

/** Runs `cqil` with `--json`; @param {readonly string[]} args @param {RunOptions} [options] */
export async function cqilJson(args, options) {
  const { stdout } = await cqil([...args, '--json'], { ...options, capture: true });
  return JSON.parse(stdout);
}

/** Installs what the lock file says, unless that is what is there. */
export async function install() {
  const installed = join(root, 'node_modules/.package-lock.json');
  const lock = join(root, 'package-lock.json');
  if (existsSync(installed) && statSync(installed).mtimeMs >= statSync(lock).mtimeMs) {
    say('   already installed');
    return;
  }
  const env = { ONNXRUNTIME_NODE_INSTALL: 'skip' };
  await run(...npm('ci'), { env, heartbeat: 'installing packages' });
}

/** The words that run npm, also where only the npm that started us is known; @param {string[]} args */
export function npm(...args) {
  const own = process.env.npm_execpath;
  return /** @type {[string, string[]]} */ (
    own?.endsWith('.js') ? [process.execPath, [own, ...args]] : ['npm', args]
  );
}

/** Runs nx without its background process and its full-screen display; @param {string[]} args @param {RunOptions} [options] */
export function nx(args, options = {}) {
  const env = { NX_DAEMON: 'false', NX_TUI: 'false', ...options.env };
  return run(process.execPath, [join(root, 'node_modules/nx/dist/bin/nx.js'), ...args], { ...options, env });
}

export function build() {
  return nx(['run-many', '-t', 'build', '--output-style=static']);
}

/** The end of a script: its failures are told, not thrown; @param {() => Promise<void>} main */
export async function script(main) {
  try {
    await main();
  } catch (error) {
    if (!(error instanceof StepFailure)) throw error;
    say(`\n${error.message}`);
    process.exitCode = 1;
  }
}
