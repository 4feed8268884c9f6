export { analyze } from './analyze.js';
export { streamValues } from './stream-values.js';
export type {
  Anatomy,
  BranchAnatomy,
  CacheAnatomy,
  LayerAnatomy,
  LayerKind,
  NormKind,
  ResidualAdd,
} from './types.js';
