export type { CodeBits } from './codes.js';
export { quantiseQdq } from './qdq.js';
export {
  type QdqModel,
  type QdqRecord,
  type QuantiseModelQdqOptions,
  quantiseModelQdq,
} from './quantise-model-qdq.js';
export { STEP_RULES, type StepRule } from './steps.js';
export type {
  QdqInput,
  QdqMatrix,
  QdqOptions,
  QdqResidual,
  QdqResult,
  QdqRotation,
  QdqStretch,
} from './types.js';
