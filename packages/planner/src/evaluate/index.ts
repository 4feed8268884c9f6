export type { Interval } from './bootstrap.js';
export { type Comparison, compare, NEAR_TIE } from './compare.js';
export { type EvaluationOptions, type Perplexity, perplexity } from './perplexity.js';
export { type SelfTextOptions, writeText } from './self-text.js';
export { loadText, type Text, type TextProvenance } from './text.js';
export { encodeStart, loadTokenizer, type Tokenizer } from './tokenizer.js';
export type { WindowOptions } from './windows.js';
