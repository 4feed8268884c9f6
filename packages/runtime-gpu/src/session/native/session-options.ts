import { configEntries } from '../config.js';
import type { SessionOptions } from '../types.js';
import type { Pointer } from './api.js';
import { check, type OrtLibrary } from './library.js';

/** `GraphOptimizationLevel`. */
const LEVELS = { disabled: 0, basic: 1, extended: 2, all: 99 } as const;
/** `OrtLoggingLevel`. */
export const LOG_LEVELS = { silent: 4, warning: 2, verbose: 0 } as const;

/** `OrtSessionOptions` for these options; the caller releases it. */
export function createSessionOptions(library: OrtLibrary, options: SessionOptions): Pointer {
  const { api } = library;
  const out = new BigUint64Array(1);
  check(api, api.CreateSessionOptions(out));
  const made = out[0]!;
  try {
    check(api, api.SetSessionLogSeverityLevel(made, LOG_LEVELS[options.log ?? 'silent']));
    check(api, api.SetSessionGraphOptimizationLevel(made, LEVELS[options.graphOptimization ?? 'all']));
    if (options.threads !== undefined) check(api, api.SetIntraOpNumThreads(made, options.threads));
    for (const [key, value] of Object.entries(configEntries(options))) {
      check(api, api.AddSessionConfigEntry(made, key, value));
    }
    return made;
  } catch (error) {
    api.ReleaseSessionOptions(made);
    throw error;
  }
}
