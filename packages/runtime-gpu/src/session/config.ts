import { availableParallelism } from 'node:os';
import { resolve } from 'node:path';
import type { SessionOptions } from './types.js';

/**
 * ONNX Runtime's own configuration entries of a session, the caller's last.
 *
 * Between two runs a session's threads look for work, in a loop, for about a millisecond. Where they take all
 * processors, they take them from JavaScript, which has to look at the logits and begin the next run, and from other
 * sessions; there they stop with the run. ONNX Runtime's own choice (no number, or 0: one a physical core) counts as all:
 * what is left beside it are the other halves of the same cores.
 */
export function configEntries(options: SessionOptions): Record<string, string> {
  const entries: Record<string, string> = {};
  const processors = availableParallelism();
  if ((options.threads || processors) >= processors) entries['session.force_spinning_stop'] = '1';
  if (options.externalDataFolder !== undefined) {
    entries['session.model_external_initializers_file_folder_path'] = resolve(options.externalDataFolder);
  }
  return { ...entries, ...options.config };
}
