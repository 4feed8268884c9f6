export * from './onnx/index.js';
export * from './source/index.js';
