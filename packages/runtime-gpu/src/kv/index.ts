export { InPlaceCache } from './in-place-cache.js';
export { type AppendRequest, InPlaceKeyValues } from './in-place-key-values.js';
export type { Bindings, BufferShape, KeyValueBuffers } from './key-value-buffers.js';
export type { DecoderCache } from './types.js';
