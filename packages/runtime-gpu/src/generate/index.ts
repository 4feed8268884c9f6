export { type PaddedBatch, padLeft, positions } from './batch.js';
export { DecoderSession, type ForwardRequest, type ForwardResult } from './decoder.js';
export type { SpeculateOptions } from './drafts/options.js';
export type { SpeculationStatistics } from './drafts/speculator.js';
export { decoderFeeds, type FeedRequest } from './feeds.js';
export {
  type GeneratedToken,
  type GenerateOptions,
  type Generation,
  generate,
  generateTokens,
  type PromptToken,
} from './generate.js';
export type { Logits } from './logits.js';
export type { TokenLogprob } from './logprobs.js';
export { PrefixCache } from './prefix-cache.js';
export { seededRandom } from './random.js';
export { argmax, type SamplingOptions, sample } from './sampling.js';
export type { TokenConstraint } from './shaping.js';
export {
  type CachePair,
  type DecoderInputs,
  type DecoderSignature,
  decoderInputs,
  decoderSignature,
  type PastInput,
} from './signature.js';
export type { StepCache, StepModel, StepRequest, StepResult } from './step-model.js';
export type { ChosenToken } from './token-chooser.js';
