import type { Anatomy } from './types.js';

/**
 * The states of the residual stream that are known to have one shape, `[batch, seq, hidden]`. Between a layer's
 * attention and its FFN some models fold batch and sequence into one; what they compute there is left out.
 */
export function streamValues(anatomy: Anatomy): Set<string> {
  const values = new Set([anatomy.streamStart, anatomy.streamEnd]);
  for (const { input, output, attention, ffn } of anatomy.layers) {
    values.add(input).add(output);
    if (attention !== undefined) values.add(attention.add.sum);
    const folded = (attention?.add.carriers.length ?? 0) > 0;
    if (ffn !== undefined && !folded) values.add(ffn.add.skip).add(ffn.add.sum);
  }
  return values;
}
