export { type ChooseOptions, choosePlan, type PlanChoice } from './choose.js';
export type { CandidateCost, CandidateGroup } from './costs.js';
export { reachableSteps } from './counting.js';
export type { LatencyLimit } from './delays.js';
export { type EvenlySpreadOptions, evenlySpreadPlan } from './evenly.js';
export { type InteractingOptions, type InteractingPlans, interactingPlans } from './interacting.js';
export { type FitOptions, fitInteractions, type Interactions } from './interactions.js';
export type { MeasuringOptions } from './ledger.js';
export { type OptimalOptions, optimalPlans, type PlanCost, type StepPlans } from './optimal.js';
export { type SearchOptions, type SearchPoint, type SearchResult, searchPlans } from './search.js';
export {
  type LatencyChange,
  latencyLimit,
  type PlanTarget,
  pointForTarget,
  stepsForLatency,
  stepsForTarget,
  type TargetPoint,
} from './target.js';
export { type UniformOptions, uniformPlan } from './uniform.js';
export { type UniformPlansOptions, uniformPlans } from './uniform-plans.js';
