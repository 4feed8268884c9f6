import { type BindableSession, isBindable } from '../session/native/bindable-session.js';
import type { Session } from '../session/types.js';
import type { DecoderSignature } from '../signature/signature.js';
import { InPlaceCache } from './in-place-cache.js';
import { bufferShapes, takesRaggedRows, writesInPlace } from './in-place-proof.js';
import { type BufferShape, KeyValueBuffers } from './key-value-buffers.js';

export interface AppendRequest {
  /** What is continued; a new cache when absent. */
  readonly cache?: InPlaceCache | undefined;
  /** New tokens of each row. */
  readonly counts: readonly number[];
  /** Whether a cache with the new tokens is wanted; without, the one that was given stays the newest. */
  readonly advance?: boolean;
  /** Positions to make room for at once; those needed now when absent. */
  readonly capacity?: number | undefined;
}

/** Caches of one session whose attention operators append in place: who may write where, and what becomes of it. */
export class InPlaceKeyValues {
  readonly session: BindableSession;
  readonly shapes: readonly BufferShape[];

  /** Whether rows of different lengths can go through the graph in one run. */
  readonly ragged: boolean;

  private constructor(session: BindableSession, shapes: readonly BufferShape[], ragged: boolean) {
    this.session = session;
    this.shapes = shapes;
    this.ragged = ragged;
  }

  /**
   * Tries out whether the session's graph appends in place; `undefined` where it does not, or where the session is not
   * native. Takes a few steps of the model.
   */
  static async prove(session: Session, signature: DecoderSignature): Promise<InPlaceKeyValues | undefined> {
    const shapes = bufferShapes(signature);
    if (shapes === undefined || !isBindable(session)) return undefined;
    if (!(await writesInPlace(session, signature, shapes))) return undefined;
    return new InPlaceKeyValues(session, shapes, await takesRaggedRows(session, signature, shapes));
  }

  /**
   * Lets `run` write behind a cache: in its own memory where it is the newest there, else in a copy.
   *
   * @param run binds the buffers, which have room for the new tokens; `lengths` are those of the rows afterwards
   * @returns what `run` returned, and the cache with the new tokens (`undefined` with `advance: false`)
   * @throws InferenceError `CACHE_STALE`, and what `run` throws: the cache that was given stays as it is
   */
  async append<T>(
    { cache, counts, advance = true, capacity = 0 }: AppendRequest,
    run: (buffers: KeyValueBuffers, lengths: readonly number[]) => Promise<T>,
  ): Promise<{ value: T; cache: InPlaceCache | undefined }> {
    const lengths = counts.map((count, row) => (cache?.lengths[row] ?? 0) + count);
    const needed = Math.max(...lengths);
    const buffers = this.#writable(cache, counts.length, Math.max(needed, capacity));
    // Memory that was made for this step has no other owner while no cache over it was handed out.
    const own = buffers !== cache?.buffers;
    let kept = !own;
    buffers.busy = true;
    try {
      buffers.reserve(needed);
      const value = await run(buffers, lengths);
      if (!advance) return { value, cache: undefined };
      kept = true;
      return { value, cache: new InPlaceCache(buffers, lengths, buffers.lineage.append()) };
    } finally {
      buffers.busy = false;
      if (!kept) buffers.dispose();
    }
  }

  #writable(cache: InPlaceCache | undefined, batch: number, room: number): KeyValueBuffers {
    if (cache === undefined) return new KeyValueBuffers(this.session, this.shapes, batch, room);
    const { buffers } = cache;
    buffers.lineage.assertValid(cache);
    return !buffers.busy && buffers.lineage.isNewest(cache) ? buffers : buffers.fork(cache.lengths, room);
  }
}
