export * from './batch/index.js';
export * from './bench/index.js';
export * from './devices/index.js';
export { type FailedNode, InferenceError } from './errors.js';
export * from './executor/index.js';
export * from './generate/index.js';
export * from './kv/index.js';
export * from './session/index.js';
export * from './tensor/index.js';
