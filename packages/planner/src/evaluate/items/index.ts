import { arithmetic } from './arithmetic.js';
import { cloze } from './cloze.js';
import { copying } from './copying.js';
import { questions } from './questions.js';
import type { Item } from './types.js';

export { ITEM_KINDS, type Item, type ItemKind } from './types.js';

/**
 * Items written for this project, 32 of each kind, in English: small models get some of them wrong, models that
 * lost the thread most. They are for telling forms of one model apart and no measure of how good a model is.
 */
export const ITEMS: readonly Item[] = [...cloze, ...arithmetic, ...copying, ...questions];
