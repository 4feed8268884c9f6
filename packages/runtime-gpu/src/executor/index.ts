export { PARTITION_FILE, type PartitionManifest, type PartitionPart, readManifest } from './manifest.js';
export { type OpenPartitionedOptions, openPartitioned, PartitionedModel } from './open.js';
export type { ChromeTrace, ExchangeTime, TraceEvent } from './timeline.js';
