import { execFile } from 'node:child_process';
import { createRequire } from 'node:module';
import { listSupportedBackends } from 'onnxruntime-node';
import { z } from 'zod';
import { reason } from '../session/ort-errors.js';
import { PROBE_INPUT, PROBE_MODEL, PROBE_OUTPUT } from './probe-model.js';

/** An execution provider, and whether it really computes on this machine. */
export interface Device {
  /** ONNX Runtime's name: `cpu`, `webgpu`, `cuda`, … */
  readonly provider: string;
  /** Whether its libraries come with the installed package. */
  readonly bundled: boolean;
  readonly works: boolean;
  /** Why not, in ONNX Runtime's words; `undefined` when it works. */
  readonly reason: string | undefined;
}

export interface DeviceOptions {
  /** Milliseconds that one provider may take to answer; 30,000 when absent. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

/**
 * Tries every execution provider that this build of ONNX Runtime knows by running a small graph on it.
 *
 * Each is tried in a process of its own: a broken driver ends that one only.
 */
export async function listDevices(options: DeviceOptions = {}): Promise<Device[]> {
  const devices: Device[] = [];
  for (const { name, bundled } of listSupportedBackends()) {
    options.signal?.throwIfAborted();
    devices.push({ provider: name, bundled, ...(await tryProvider(name, options)) });
  }
  return devices;
}

/** What the other process runs. It answers on stdout with one line of JSON. */
const CHILD = `
const [ortPath, provider, model, input] = process.argv.slice(1);
const ort = require(ortPath);
(async () => {
  const session = await ort.InferenceSession.create(Buffer.from(model, 'base64'), {
    executionProviders: [provider],
    logSeverityLevel: 4,
  });
  const x = new ort.Tensor('float32', Float32Array.from(JSON.parse(input)), [2, 2]);
  const { y } = await session.run({ x });
  await session.release();
  return { output: Array.from(y.data) };
})().catch((error) => ({ error: String(error.message) })).then((answer) => {
  process.stdout.write('\\n' + JSON.stringify(answer) + '\\n', () => process.exit(0));
});
`;

const answerSchema = z.union([
  z.strictObject({ output: z.array(z.number()) }),
  z.strictObject({ error: z.string() }),
]);

/** Whether a provider computes `PROBE_MODEL` on this machine. Never throws but for the signal. */
export async function tryProvider(
  provider: string,
  options: DeviceOptions = {},
): Promise<Pick<Device, 'works' | 'reason'>> {
  const { timeoutMs = 30_000, signal } = options;
  const ort = createRequire(import.meta.url).resolve('onnxruntime-node');
  const argv = [
    '-e',
    CHILD,
    '--',
    ort,
    provider,
    PROBE_MODEL.toString('base64'),
    JSON.stringify(PROBE_INPUT),
  ];
  const { stdout, ended } = await run(argv, timeoutMs, signal);
  signal?.throwIfAborted();
  const answer = answerSchema.safeParse(lastJson(stdout));
  if (!answer.success) return { works: false, reason: ended ?? 'the process that tried it gave no answer' };
  if ('error' in answer.data) return { works: false, reason: reason(answer.data.error) };
  const right = answer.data.output.every((value, i) => Math.abs(value - PROBE_OUTPUT[i]!) < 0.05);
  return right && answer.data.output.length === PROBE_OUTPUT.length
    ? { works: true, reason: undefined }
    : { works: false, reason: `it computes wrong: [${answer.data.output.join(', ')}]` };
}

function run(
  argv: readonly string[],
  timeout: number,
  signal: AbortSignal | undefined,
): Promise<{ stdout: string; ended: string | undefined }> {
  const env = { ...process.env, ORT_DISABLE_TELEMETRY: process.env.ORT_DISABLE_TELEMETRY ?? '1' };
  return new Promise((resolve) => {
    const settings = { env, timeout, encoding: 'utf8' as const, killSignal: 'SIGKILL' as const };
    execFile(
      process.execPath,
      argv,
      signal === undefined ? settings : { ...settings, signal },
      (error, stdout) => {
        let ended: string | undefined;
        if (error?.killed) ended = `it did not answer within ${timeout / 1000} s`;
        else if (error?.signal) ended = `the process that tried it crashed (${error.signal})`;
        else if (error) ended = `the process that tried it ended with code ${error.code ?? 'unknown'}`;
        resolve({ stdout, ended });
      },
    );
  });
}

function lastJson(stdout: string): unknown {
  const line = stdout.trim().split('\n').at(-1) ?? '';
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}
