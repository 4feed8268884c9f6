import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { z } from 'zod';
import { InferenceError } from '../errors.js';
import { openSession } from '../session/open.js';
import { reason } from '../session/ort-errors.js';
import type { ValueInfo } from '../session/types.js';
import { decoderInputs } from '../signature/signature.js';
import { answerOf } from './child.js';

/** Which device computed what of a model. */
export interface ProviderUsage {
  /** The provider that was asked for, before the CPU. */
  readonly provider: string;
  /** Nodes that ran, by provider. */
  readonly nodes: Readonly<Record<string, number>>;
  /** Operators that the provider left to the CPU, and how often. */
  readonly leftToCpu: Readonly<Record<string, number>>;
  /** Copies between devices in one step. */
  readonly copies: number;
  /** Time in the kernels of one step, by provider, ms. */
  readonly kernelMs: Readonly<Record<string, number>>;
  /** Memory of the process when the model was loaded and had run, bytes. */
  readonly rssBytes: number;
}

/** What the provider does not take goes to the CPU by itself; with the CPU named beside it, any name would pass. */
const CHILD = `
const [ortPath, provider, model, inputs, prefix] = process.argv.slice(1);
const ort = require(ortPath);
(async () => {
  const session = await ort.InferenceSession.create(model, {
    executionProviders: [provider],
    logSeverityLevel: 4, enableProfiling: true, profileFilePrefix: prefix,
  });
  const feeds = {};
  for (const { name, type, dims } of JSON.parse(inputs)) {
    const count = dims.reduce((a, b) => a * b, 1);
    const array = { float32: Float32Array, int64: BigInt64Array, int32: Int32Array, float16: Uint16Array,
      bool: Uint8Array, int8: Int8Array, uint8: Uint8Array, float64: Float64Array }[type];
    const data = new array(count);
    if (!name.startsWith('past')) data.fill(type === 'int64' ? 1n : 1);
    feeds[name] = new ort.Tensor(type, data, dims);
  }
  await session.run(feeds);
  session.endProfiling();
  const { rss } = process.memoryUsage();
  await session.release();
  return { rss };
})().catch((error) => ({ error: String(error.message) })).then((answer) => {
  process.stdout.write('\\n' + JSON.stringify(answer) + '\\n', () => process.exit(0));
});
`;

const answerSchema = z.union([z.strictObject({ rss: z.number() }), z.strictObject({ error: z.string() })]);
const eventSchema = z.looseObject({
  cat: z.string(),
  name: z.string(),
  dur: z.number().optional(),
  args: z.looseObject({ provider: z.string().optional(), op_name: z.string().optional() }).optional(),
});

/**
 * Runs one token through a decoder with a provider, in a process of its own, and counts who computed what.
 *
 * @throws InferenceError `NOT_A_DECODER`, `PROVIDER_UNAVAILABLE`, `MODEL_NOT_FOUND`, `MODEL_LOAD_FAILED`; the signal's
 *   reason
 */
export async function providerUsage(
  model: string,
  provider: string,
  options: { readonly timeoutMs?: number; readonly signal?: AbortSignal } = {},
): Promise<ProviderUsage> {
  const { timeoutMs = 300_000, signal } = options;
  const session = await openSession(model);
  const inputs = session.inputs;
  await session.dispose();
  decoderInputs(inputs);
  const folder = await mkdtemp(path.join(os.tmpdir(), 'cqil-usage-'));
  try {
    const ort = createRequire(import.meta.url).resolve('onnxruntime-node');
    const feeds = JSON.stringify(inputs.map(oneToken));
    const argv = ['-e', CHILD, '--', ort, provider, path.resolve(model), feeds, path.join(folder, 'profile')];
    const { answer, ended } = await answerOf(argv, { timeoutMs, signal, schema: answerSchema });
    if (answer === undefined || 'error' in answer) {
      throw new InferenceError('PROVIDER_UNAVAILABLE', `${provider} does not run ${model}.`, {
        expected: 'one step of the model',
        found: answer === undefined ? (ended ?? 'no answer') : reason(answer.error),
        hint: '`cqil doctor` says which devices work here.',
      });
    }
    const [profile] = await readdir(folder);
    const events = z
      .array(eventSchema)
      .parse(JSON.parse(await readFile(path.join(folder, profile!), 'utf8')));
    return { provider, rssBytes: answer.rss, ...countNodes(events) };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Sums up a profile of ONNX Runtime. */
export function countNodes(
  events: readonly z.infer<typeof eventSchema>[],
): Pick<ProviderUsage, 'nodes' | 'leftToCpu' | 'copies' | 'kernelMs'> {
  const nodes: Record<string, number> = {};
  const kernelMs: Record<string, number> = {};
  const onCpu: Record<string, number> = {};
  let copies = 0;
  for (const { cat, name, dur = 0, args } of events) {
    if (cat !== 'Node' || !name.endsWith('_kernel_time') || args?.provider === undefined) continue;
    const provider = args.provider.replace(/ExecutionProvider$/, '').toLowerCase();
    const operator = args.op_name ?? 'unknown';
    if (/^Memcpy(To|From)Host$/.test(operator)) copies += 1;
    nodes[provider] = (nodes[provider] ?? 0) + 1;
    kernelMs[provider] = (kernelMs[provider] ?? 0) + dur / 1000;
    if (provider === 'cpu') onCpu[operator] = (onCpu[operator] ?? 0) + 1;
  }
  return { nodes, kernelMs, copies, leftToCpu: Object.keys(nodes).length > 1 ? onCpu : {} };
}

/** One token of one sequence, without a past. */
function oneToken({ name, elementType, shape }: ValueInfo): { name: string; type: string; dims: number[] } {
  const isPast = name.startsWith('past');
  const dims = shape.map((dim, axis) => (typeof dim === 'number' ? dim : isPast && axis > 0 ? 0 : 1));
  return { name, type: elementType, dims };
}
