export { type OptimizeReport, optimizeReportSchema } from './document.js';
export { COSTS_FILE, type OptimizeResult, optimize } from './optimize.js';
export type { BaselineChoice, Effort, OptimizeOptions, PredictedLatency } from './options.js';
