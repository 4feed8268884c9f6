export * from './errors.js';
export * from './grouping/index.js';
export * from './latency/index.js';
export * from './plan/index.js';
export type { OnProgress, Progress } from './progress.js';
export * from './similarity/index.js';
export * from './simulate/index.js';
