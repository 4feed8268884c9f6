export { type BlockOptions, dequantiseBlocks, type QuantisedBlocks, quantiseBlocks } from './blocks.js';
export { type CompensateOptions, roundCompensated } from './compensate.js';
export * from './qdq/index.js';
export { quantise } from './quantise.js';
export {
  type QuantisedModel,
  type QuantiseModelOptions,
  type QuantiseRecord,
  quantiseModel,
} from './quantise-model.js';
export { type RoundOptions, roundToNearest } from './round.js';
export {
  QUANTISE_METHODS,
  type QuantisedMatrix,
  type QuantiseMethod,
  type QuantiseOptions,
  type QuantiseResult,
  type UnquantisedMatrix,
} from './types.js';
export { QUANTISE_FILE, type QuantisedFolderOptions, type QuantisedFolderRecord } from './write-quantised.js';
