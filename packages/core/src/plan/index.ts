export { type AuthorsConfig, planFromAuthorsConfig, planToAuthorsConfig } from './authors.js';
export { PLAN_ERROR_CODES, type PlanErrorCode } from './codes.js';
export { type PlanChecks, parsePlan, validatePlan } from './parse.js';
export { planJsonSchema } from './schema.js';
export { effectiveBypass, planSteps, sequentialSteps } from './steps.js';
export { stringifyPlan } from './stringify.js';
export type { Bypass, GroupForm, Plan, PlanGroup, PlanProvenance } from './types.js';
