export * from './errors.js';
export type { Bypass, GroupForm, Plan, PlanGroup, PlanProvenance } from './plan/types.js';
export type { OnProgress, Progress } from './progress.js';
