import type { SessionOptions } from '@cqil/runtime-gpu';
import type { OrtSessionOptions } from './ort.js';

const LEVELS = ['disabled', 'basic', 'extended', 'all'] as const;
/** ONNX Runtime's severities: 0 verbose, 1 info, 2 warning, 3 error, 4 fatal. What fails is thrown, so errors are not logged. */
const LOGS = ['verbose', 'warning', 'warning', 'silent', 'silent'] as const;

type Reader = (value: unknown, into: Mutable<SessionOptions>) => boolean;
type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** Options that change nothing for a session on one CPU. */
const ignored: Reader = () => true;
/** Options that can be had at ONNX Runtime's own default only. */
const only =
  (value: unknown): Reader =>
  (given) =>
    given === value;

/** What becomes of each option: `false` says that the native session cannot do it. */
const READERS: Readonly<Record<string, Reader>> = {
  executionProviders: (value) =>
    Array.isArray(value) && value.every((provider: unknown) => provider === 'cpu' || isPlainCpu(provider)),
  intraOpNumThreads: (value, into) => {
    if (typeof value !== 'number' || !Number.isInteger(value) || value < 0) return false;
    // 0 is ONNX Runtime's word for its own choice.
    if (value > 0) into.threads = value;
    return true;
  },
  graphOptimizationLevel: (value, into) => {
    const level = LEVELS.find((known) => known === value);
    if (level === undefined) return false;
    into.graphOptimization = level;
    return true;
  },
  logSeverityLevel: (value, into) => {
    const log = LOGS[value as number];
    if (log === undefined) return false;
    into.log = log;
    return true;
  },
  extra: (value, into) => {
    const config: Record<string, string> = {};
    if (!flatten(value, '', config)) return false;
    into.config = config;
    return true;
  },
  enableCpuMemArena: only(true),
  enableMemPattern: only(true),
  executionMode: only('sequential'),
  enableProfiling: only(false),
  enableGraphCapture: only(false),
  // Threads between operators: the sequential mode has none.
  interOpNumThreads: ignored,
  logId: ignored,
  logVerbosityLevel: ignored,
  profileFilePrefix: ignored,
};

/**
 * The same options for a native session, or `undefined` where one of them cannot be represented there (other devices,
 * `preferredOutputLocation`, `externalData`, `freeDimensionOverrides`, …).
 */
export function nativeOptions(options: OrtSessionOptions): SessionOptions | undefined {
  const native: Mutable<SessionOptions> = {};
  for (const name of Object.keys(options)) {
    const value = options[name as keyof OrtSessionOptions] as unknown;
    if (value === undefined || value === null) continue;
    const read = Object.hasOwn(READERS, name) ? READERS[name]! : undefined;
    if (read === undefined || !read(value, native)) return undefined;
  }
  return native;
}

/** `{ name: 'cpu' }`, with nothing else to say. */
function isPlainCpu(provider: unknown): boolean {
  if (typeof provider !== 'object' || provider === null) return false;
  return Object.entries(provider).every(([key, value]) =>
    key === 'name' ? value === 'cpu' : key === 'useArena' && value === true,
  );
}

/** `{ session: { disable_prepacking: '1' } }` → `session.disable_prepacking`. */
function flatten(value: unknown, prefix: string, into: Record<string, string>): boolean {
  if (typeof value !== 'object' || value === null) return false;
  return Object.entries(value).every(([key, inner]: [string, unknown]) => {
    const name = prefix === '' ? key : `${prefix}.${key}`;
    if (typeof inner === 'object') return flatten(inner, name, into);
    if (!['string', 'number', 'boolean'].includes(typeof inner)) return false;
    into[name] = typeof inner === 'boolean' ? String(Number(inner)) : String(inner);
    return true;
  });
}
