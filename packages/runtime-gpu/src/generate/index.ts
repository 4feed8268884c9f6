export { type PaddedBatch, padLeft, positions } from './batch.js';
export {
  type DecoderCache,
  DecoderSession,
  type ForwardRequest,
  type ForwardResult,
  type Logits,
} from './decoder.js';
export { decoderFeeds, type FeedRequest } from './feeds.js';
export { type GenerateOptions, type Generation, generate } from './generate.js';
export { seededRandom } from './random.js';
export { argmax, type SamplingOptions, sample } from './sampling.js';
export {
  type CachePair,
  type DecoderInputs,
  type DecoderSignature,
  decoderInputs,
  decoderSignature,
  type PastInput,
} from './signature.js';
