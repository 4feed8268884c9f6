export { linearMaps } from './maps.js';
export { type MapMatrix, readMatrix } from './read.js';
export {
  type MatrixReplacement,
  type MatrixStorage,
  type ReplaceOptions,
  replaceMatrices,
} from './replace.js';
export type { LinearMap, LinearMaps, MapRefusal, MapRole } from './types.js';
