export { PARTITION_FILE, type PartitionManifest, type PartitionPart, readManifest } from './manifest.js';
export { isPartition, type OpenPartitionedOptions, openPartitioned, PartitionedModel } from './open.js';
export { openDecoder } from './open-decoder.js';
export type { ChromeTrace, ExchangeTime, TraceEvent } from './timeline.js';
