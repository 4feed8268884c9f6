export { PLAN_METADATA_KEY, type RewriteResult, rewriteBranches } from './branches.js';
export {
  PLAN_FILE,
  type RewriteCheck,
  type RewriteOptions,
  type RewrittenModel,
  rewriteModel,
} from './rewrite-model.js';
export { skipLayers } from './skip.js';
