export { PLAN_METADATA_KEY, type RewriteResult, rewriteBranches } from './branches.js';
export * from './fuse/index.js';
export * from './partition/index.js';
export {
  PLAN_FILE,
  type RewriteCheck,
  type RewriteOptions,
  type RewrittenModel,
  rewriteModel,
} from './rewrite-model.js';
export { skipLayers } from './skip.js';
export {
  type CacheEntry,
  type CacheForm,
  cacheEntries,
  KV_METADATA_KEY,
  mergeObstacles,
  rewriteGroups,
  splitCaches,
  WIDE_METADATA_KEY,
  type WideGroupRecord,
  type WideOptions,
  type WideStorage,
  wideGroups,
} from './wide/index.js';
