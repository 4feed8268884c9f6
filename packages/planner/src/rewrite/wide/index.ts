export { changedConfigs } from './genai-config.js';
export { type CacheEntry, type CacheForm, cacheEntries, KV_METADATA_KEY, splitCaches } from './kv.js';
export {
  WIDE_METADATA_KEY,
  type WideBranchRecord,
  type WideGroupRecord,
  type WideProduct,
  wideGroups,
} from './metadata.js';
export type { WideStorage } from './product.js';
export { mergeObstacles, merges, rewriteGroups, type WideOptions } from './rewrite-groups.js';
