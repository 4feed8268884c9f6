export * from './onnx/index.js';
export * from './source/index.js';
export * from './anatomy/index.js';
export * from './evaluate/index.js';
export * from './variant/index.js';
export * from './rewrite/index.js';
