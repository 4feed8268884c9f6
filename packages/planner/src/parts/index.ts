export { attentionRead, type GroupResult, SharedInput } from './group.js';
export {
  type BranchOptions,
  type BranchResult,
  ModelParts,
  type PartsOptions,
  type PartsRunOptions,
  type PlanRunOptions,
} from './model-parts.js';
export type { ComparedPredictions, Predictions, Scores } from './score.js';
export type { StreamBatch } from './stream-batch.js';
