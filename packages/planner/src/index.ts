export * from './anatomy/index.js';
export * from './evaluate/index.js';
export * from './gguf/index.js';
export * from './onnx/index.js';
export * from './probe/index.js';
export * from './rewrite/index.js';
export * from './source/index.js';
export * from './variant/index.js';
