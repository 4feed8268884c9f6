export { PLAN_METADATA_KEY, type RewriteResult, rewriteBranches } from './branches.js';
