import { InferenceError } from '../errors.js';
import type { TensorValue } from '../tensor/types.js';
import type { KeyValueBuffers } from './key-value-buffers.js';
import { type Stamped, stale } from './lineage.js';
import type { DecoderCache } from './types.js';

/** A cache in memory that attention operators write in place: how far each row of it goes. */
export class InPlaceCache implements DecoderCache, Stamped {
  readonly buffers: KeyValueBuffers;
  /** Tokens of each row. Shorter rows are padded on the right. */
  readonly lengths: readonly number[];
  readonly length: number;
  readonly stamp: number;

  constructor(buffers: KeyValueBuffers, lengths: readonly number[], stamp: number) {
    this.buffers = buffers;
    this.lengths = lengths;
    this.length = Math.max(...lengths);
    this.stamp = stamp;
  }

  get mask(): number[][] {
    return this.lengths.map((length) => Array.from({ length: this.length }, (_, i) => (i < length ? 1 : 0)));
  }

  get tensors(): Record<string, TensorValue> {
    this.buffers.lineage.assertValid(this);
    return this.buffers.copyOut(this.lengths);
  }

  truncate(length: number): InPlaceCache {
    assertLength(length, this.length);
    const { lineage } = this.buffers;
    lineage.assertValid(this);
    if (this.buffers.busy) throw stale('no step under way', 'one that writes to the same memory');
    const lengths = this.lengths.map((own) => Math.min(own, length));
    return new InPlaceCache(this.buffers, lengths, lineage.cut(length));
  }

  dispose(): void {
    this.buffers.dispose();
  }
}

/** @throws InferenceError `CACHE_MISMATCH` */
export function assertLength(length: number, most: number): void {
  if (Number.isInteger(length) && length >= 1 && length <= most) return;
  throw new InferenceError('CACHE_MISMATCH', 'The cache cannot be cut to that length.', {
    expected: `a whole number from 1 to ${most}`,
    found: String(length),
  });
}
