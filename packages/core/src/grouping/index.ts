export { type ChooseOptions, choosePlan, type PlanChoice } from './choose.js';
export type { CandidateCost, CandidateGroup } from './costs.js';
export { type EvenlySpreadOptions, evenlySpreadPlan } from './evenly.js';
export { type UniformOptions, uniformPlan } from './uniform.js';
