export { BatchedDecoder, type BatchOptions } from './batched-decoder.js';
