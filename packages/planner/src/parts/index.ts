export { attentionRead, type GroupResult, SharedInput } from './group.js';
export {
  type BranchOptions,
  type BranchResult,
  ModelParts,
  type PartsOptions,
  type PartsRunOptions,
  type PlanRunOptions,
} from './model-parts.js';
export type { ComparedStreamScores, Scores, StreamScores } from './score.js';
export { type StreamBatch, sumOf } from './stream-batch.js';
