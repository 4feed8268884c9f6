export type { DecoderCache } from './types.js';
