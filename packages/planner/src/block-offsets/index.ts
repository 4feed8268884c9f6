export {
  decodeOffsets,
  encodeOffsets,
  type OffsetBlocks,
  type ProductBlocks,
  zeroPointBytes,
} from './digits.js';
export { layoutOfProduct, type OffsetLayout, offsetLayout } from './layout.js';
export { appendBlockSums, type NodeMaker } from './sums.js';
