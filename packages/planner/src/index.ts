export * from './onnx/index.js';
export * from './source/index.js';
export * from './anatomy/index.js';
