export { type BlockOptions, dequantiseBlocks, type QuantisedBlocks, quantiseBlocks } from './blocks.js';
