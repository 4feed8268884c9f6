export { type CandidateOptions, candidateGroups } from './candidates.js';
export { type CostsResult, formatCosts, type MeasuredCandidate, readCosts, writeCosts } from './document.js';
export type { HalvingOptions, RankedBy } from './halving.js';
export { type CostsOptions, measureCosts } from './measure-costs.js';
export { type PlanCost, type PlanCostOptions, planCost, planCosts } from './plan-cost.js';
export { ReferenceStreams, type ReferenceStreamsOptions } from './reference.js';
export type { KindMeans, Means } from './tally.js';
export { type CostText, costTexts, hashWindows, type TextSource } from './windows.js';
