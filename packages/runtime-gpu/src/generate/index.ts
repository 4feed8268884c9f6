export { type PaddedBatch, padLeft, positions } from './batch.js';
export {
  type DecoderCache,
  DecoderSession,
  type ForwardRequest,
  type ForwardResult,
  type Logits,
} from './decoder.js';
export { type GenerateOptions, type Generation, generate } from './generate.js';
export { seededRandom } from './random.js';
export { argmax, type SamplingOptions, sample } from './sampling.js';
export { type CachePair, type DecoderSignature, decoderSignature } from './signature.js';
