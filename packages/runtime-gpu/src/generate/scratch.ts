/**
 * Room for one row of logits and what is computed from it, used again for every token: a vocabulary of 150,000
 * entries would otherwise leave megabytes of garbage a token. Everything here is synchronous, so one is enough
 * for all generations of a process.
 */
export interface Scratch {
  /** A row of logits that may be changed. */
  readonly logits: Float32Array;
  /** The weight of every token. */
  readonly weights: Float64Array;
  /** The bin of every token, by how far its logit lies under the best. */
  readonly bins: Uint16Array;
  /** What is kept, in the order of the ids. */
  readonly ids: Int32Array;
  readonly kept: Float64Array;
}

let current: Scratch | undefined;

/** The room for rows of this many entries; what an earlier call left there is lost. */
export function scratchFor(vocabulary: number): Scratch {
  if (current?.logits.length !== vocabulary) {
    current = {
      logits: new Float32Array(vocabulary),
      weights: new Float64Array(vocabulary),
      bins: new Uint16Array(vocabulary),
      ids: new Int32Array(vocabulary),
      kept: new Float64Array(vocabulary),
    };
  }
  return current;
}
