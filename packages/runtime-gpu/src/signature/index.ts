export { decoderFeeds, type FeedRequest } from './feeds.js';
export { type PaddedBatch, padLeft, positions } from './padding.js';
export {
  type CachePair,
  type DecoderInputs,
  type DecoderSignature,
  decoderInputs,
  decoderSignature,
  type PastInput,
} from './signature.js';
