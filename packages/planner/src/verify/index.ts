export { type Arithmetic, BASE_TOLERANCE } from './tolerance.js';
export type { CheckName, CheckStatus, VerifyCheck, VerifyReport } from './types.js';
export {
  failureOf,
  rewriteCheck,
  type VerifyOptions,
  type VerifyRewrittenOptions,
  verify,
  verifyRewritten,
} from './verify.js';
