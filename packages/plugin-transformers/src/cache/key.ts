import { createHash } from 'node:crypto';
import type { Plan } from '@cqil/core';
import type { FileStamp } from './stamp.js';

/** What a rewritten graph depends on. */
export interface KeyParts {
  readonly plan: Plan;
  /** The source graph relative to the model's folder, and the state of its files. */
  readonly graph: string;
  readonly dtype: string;
  readonly files: readonly FileStamp[];
  /** The version of the planner that rewrites. */
  readonly planner: string;
}

/** Changes whenever the layout of a cache entry does. */
const FORMAT = 1;

/**
 * The name of the cache entry: 32 hexadecimal digits. A plan's provenance says nothing about the graph, so
 * it does not count; neither does the order of the plan's keys.
 */
export function cacheKey({ plan, graph, dtype, files, planner }: KeyParts): string {
  const groups = plan.groups.map(({ layers, bypass, form }) => [layers, bypass, form ?? 'branches']);
  const sources = files.map(({ path, size, changed }) => [path, size, changed]);
  const document = [FORMAT, planner, [plan.version, plan.layers, groups], graph, dtype, sources];
  return createHash('sha256').update(JSON.stringify(document)).digest('hex').slice(0, 32);
}
