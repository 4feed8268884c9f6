export {
  type ExitsOptions,
  type ExitsReport,
  type ExitsResult,
  measureExits,
} from './measure.js';
export type { ExitPromise } from './policy.js';
export { EXIT_SCORES, type ExitCosts, type ExitScore } from './states.js';
