export type { Interval } from './bootstrap.js';
export { type Comparison, compare, NEAR_TIE } from './compare.js';
export {
  agreement,
  continueGreedily,
  type GenerationAgreement,
  type GenerationSample,
  type GreedyOptions,
  generationSamples,
  promptsFrom,
} from './greedy.js';
export { ITEM_KINDS, ITEMS, type Item, type ItemKind } from './items/index.js';
export {
  type EvaluateKindsOptions,
  evaluateKinds,
  evaluateOriginal,
  type KindsEvaluation,
} from './kinds.js';
export { type EvaluationOptions, type Perplexity, perplexity } from './perplexity.js';
export {
  type ComparedPredictions,
  type Predictions,
  type Predictor,
  Reference,
  type ReferenceOptions,
} from './reference.js';
export { type ItemScore, type ItemsResult, type ScoreItemsOptions, scoreItems } from './score-items.js';
export { type SelfTextOptions, writeText } from './self-text.js';
export { loadText, type Text, type TextProvenance } from './text.js';
export {
  type KindWindows,
  openTextSets,
  TEXT_SETS,
  type TextSet,
  type TextSetName,
  type TextSetRecord,
  type TextSets,
  type TextSetsOptions,
  type TextUse,
  textSetRecord,
} from './text-sets.js';
export { parseTextSpec, type TextSpec } from './text-spec.js';
export { encodeStart, loadTokenizer, type Tokenizer } from './tokenizer.js';
export type { WindowOptions } from './windows.js';
