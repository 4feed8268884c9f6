import { createRequire } from 'node:module';
import { listSupportedBackends } from 'onnxruntime-node';
import { z } from 'zod';
import { reason } from '../session/ort-errors.js';
import { answerOf } from './child.js';
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
  const { answer, ended } = await answerOf(argv, { timeoutMs, signal, schema: answerSchema });
  if (answer === undefined)
    return { works: false, reason: ended ?? 'the process that tried it gave no answer' };
  if ('error' in answer) return { works: false, reason: reason(answer.error) };
  const right = answer.output.every((value, i) => Math.abs(value - PROBE_OUTPUT[i]!) < 0.05);
  return right && answer.output.length === PROBE_OUTPUT.length
    ? { works: true, reason: undefined }
    : { works: false, reason: `it computes wrong: [${answer.output.join(', ')}]` };
}
