export type { AttentionShape, ProductShape } from './graphs.js';
export { type MeasureOptions, measureProfile, type NormShape, type Work, workOf } from './measure.js';
export { ALL_DEVICES, measurePartition } from './partition.js';
