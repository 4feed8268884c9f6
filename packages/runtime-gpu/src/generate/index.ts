export { checkSpeculation, type SpeculateOptions } from './drafts/options.js';
export type { SpeculationStatistics } from './drafts/speculator.js';
export {
  type GeneratedToken,
  type GenerateOptions,
  type Generation,
  generate,
  generateTokens,
  type PromptToken,
} from './generate.js';
export type { TokenLogprob } from './logprobs.js';
export { PrefixCache } from './prefix-cache.js';
export { seededRandom } from './random.js';
export { argmax, type SamplingOptions, sample } from './sampling.js';
export type { TokenConstraint } from './shaping.js';
export type { ChosenToken } from './token-chooser.js';
