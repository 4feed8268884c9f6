export { analyze } from './analyze.js';
export type {
  Anatomy,
  BranchAnatomy,
  CacheAnatomy,
  LayerAnatomy,
  LayerKind,
  NormKind,
  ResidualAdd,
} from './types.js';
