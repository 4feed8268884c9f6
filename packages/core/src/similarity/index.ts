export {
  type Matrix,
  type Similarity,
  SimilarityAccumulator,
  type SimilarityOptions,
} from './accumulator.js';
export {
  type BlockDependency,
  BlockDependencyAccumulator,
  type BlockDependencyOptions,
  blockDependency,
} from './dependency.js';
export { type TokenMask, type TokenMaskOptions, tokenMask } from './mask.js';
export type { SimilarityState } from './state.js';
