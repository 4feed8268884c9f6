export type { ProductShape } from './graphs.js';
export { type MeasureOptions, measureProfile, productsOf } from './measure.js';
