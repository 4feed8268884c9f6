export { type OptimizeReport, optimizeReportSchema } from './document.js';
export { type OptimizeResult, optimize } from './optimize.js';
export type { BaselineChoice, OptimizeOptions } from './options.js';
