import type { StreamBatch } from '../parts/index.js';

/** Tokens whose mean square is more than this many times the batch's median are massive activations. */
const MASSIVE = 1000;

/**
 * How much each token counts in a regression: not at all at the start of a sequence and where the stream holds a massive
 * activation (arXiv 2402.17762), since a few such tokens would outweigh all others.
 *
 * @param relative weighs a token by 1 over its mean square: what reads the stream normalises it first
 * @returns `[batch · sequence]`
 */
export function tokenWeights(stream: StreamBatch, skipFirst: number, relative: boolean): Float32Array {
  const [batch, sequence, hidden] = stream.dims;
  const squares = new Float32Array(batch * sequence);
  for (let token = 0; token < squares.length; token++) {
    let sum = 0;
    for (let i = token * hidden; i < (token + 1) * hidden; i++) sum += stream.data[i]! ** 2;
    squares[token] = sum / hidden;
  }
  const median = Float32Array.from(squares).sort()[squares.length >> 1] as number;
  return squares.map((square, token) => {
    if (token % sequence < skipFirst || square > MASSIVE * median) return 0;
    if (!relative) return 1;
    return square > 0 ? 1 / square : 0;
  });
}
