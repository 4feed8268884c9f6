import { seededRandom } from '@cqil/runtime-gpu';
import { maskOf, type Numbers, type Situation } from './probe.js';

/** Numbers between −1 and 1 with eleven bits, which every floating-point type has; the same for the same seed. */
export function randomNumbers(dims: readonly number[], seed: number): Numbers {
  const random = seededRandom(seed);
  const length = dims.reduce((a, b) => a * b, 1);
  return { dims, data: Float32Array.from({ length }, () => Math.round((random() * 2 - 1) * 1024) / 1024) };
}

export function filled(dims: readonly number[], value: number): Numbers {
  return { dims, data: new Float32Array(dims.reduce((a, b) => a * b, 1)).fill(value) };
}

/** Whether two lists agree up to `tolerance`, relative to the largest of the expected ones (at least 1). */
export function agree(
  found: ArrayLike<number>,
  expected: ArrayLike<number>,
  tolerance: number,
  counts?: (i: number) => boolean,
): boolean {
  if (found.length !== expected.length) return false;
  let size = 1;
  for (let i = 0; i < expected.length; i++) size = Math.max(size, Math.abs(expected[i] as number));
  for (let i = 0; i < expected.length; i++) {
    if (counts?.(i) === false) continue;
    if (!(Math.abs((found[i] as number) - (expected[i] as number)) <= tolerance * size)) return false;
  }
  return true;
}

/** What a query may look at: its own position and those before it that are tokens, no further back than a window. */
export function isVisible(
  situation: Situation,
  sequence: number,
  s: number,
  t: number,
  window: number | undefined,
): boolean {
  const at = situation.past + s;
  if (t > at || (window !== undefined && t <= at - window)) return false;
  return t >= (situation.padding[sequence] as number);
}

/** Whether a query is a token: what padding looks at does not matter. */
export function isToken(situation: Situation, sequence: number, s: number): boolean {
  return maskOf(situation)[sequence]?.[situation.past + s] === 1;
}

/** Shapes of one run of attention: heads `[B, H, S, D]`, keys and values `[B, G, T, D]`. */
export interface Heads {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headSize: number;
}

/** `q · k` of each query with each key of its group: `[B, H, S, T]`, row-major, in float64. */
export function scores(
  situation: Situation,
  { heads, kvHeads, headSize }: Heads,
  q: Numbers,
  k: Numbers,
): Float64Array {
  const { past, seq, padding } = situation;
  const total = past + seq;
  const out = new Float64Array(padding.length * heads * seq * total);
  let at = 0;
  for (let b = 0; b < padding.length; b++) {
    for (let h = 0; h < heads; h++) {
      const group = Math.floor(h / (heads / kvHeads));
      for (let s = 0; s < seq; s++) {
        const query = ((b * heads + h) * seq + s) * headSize;
        for (let t = 0; t < total; t++, at++) {
          const key = ((b * kvHeads + group) * total + t) * headSize;
          let sum = 0;
          for (let d = 0; d < headSize; d++)
            sum += (q.data[query + d] as number) * (k.data[key + d] as number);
          out[at] = sum;
        }
      }
    }
  }
  return out;
}

/** `Σ softmax(scale · q · k) v` over what is visible, as `[B, S, H · D]`; zero where nothing is. */
export function attention(
  situation: Situation,
  heads: Heads,
  products: Float64Array,
  v: Numbers,
  rule: { readonly scale: number; readonly softcap: number | undefined; readonly window: number | undefined },
): Float64Array {
  const { past, seq, padding } = situation;
  const { heads: count, kvHeads, headSize } = heads;
  const total = past + seq;
  const out = new Float64Array(padding.length * seq * count * headSize);
  for (let b = 0; b < padding.length; b++) {
    for (let h = 0; h < count; h++) {
      const group = Math.floor(h / (count / kvHeads));
      for (let s = 0; s < seq; s++) {
        const row = ((b * count + h) * seq + s) * total;
        const weights = Array.from({ length: total }, (_, t) => {
          if (!isVisible(situation, b, s, t, rule.window)) return 0;
          const score = rule.scale * (products[row + t] as number);
          return Math.exp(
            rule.softcap === undefined ? score : rule.softcap * Math.tanh(score / rule.softcap),
          );
        });
        const sum = weights.reduce((a, w) => a + w, 0);
        if (sum === 0) continue;
        const to = (b * seq + s) * count * headSize + h * headSize;
        for (let t = 0; t < total; t++) {
          const from = ((b * kvHeads + group) * total + t) * headSize;
          const share = (weights[t] as number) / sum;
          for (let d = 0; d < headSize; d++)
            out[to + d] = (out[to + d] as number) + share * (v.data[from + d] as number);
        }
      }
    }
  }
  return out;
}

/** `[B, S, H · D]` as `[B, H, S, D]`. */
export function toHeads(
  rows: ArrayLike<number>,
  batch: number,
  seq: number,
  heads: number,
  size: number,
): Float64Array {
  const out = new Float64Array(rows.length);
  for (let b = 0, at = 0; b < batch; b++) {
    for (let h = 0; h < heads; h++) {
      for (let s = 0; s < seq; s++) {
        for (let d = 0; d < size; d++, at++) out[at] = rows[((b * seq + s) * heads + h) * size + d] as number;
      }
    }
  }
  return out;
}

/**
 * Rotary embedding (Su et al., "RoFormer", arXiv 2104.09864) of the first `2 · half` features of each head, `[B, H, S, D]`.
 *
 * @param cos by sequence and position, `[B][S]` rows of `half` numbers
 */
export function rotated(
  x: Numbers,
  cos: (sequence: number, s: number, i: number) => number,
  sin: (sequence: number, s: number, i: number) => number,
  half: number,
  interleaved: boolean,
): Float64Array {
  const [batch, heads, seq, size] = x.dims as [number, number, number, number];
  const out = Float64Array.from(x.data);
  for (let b = 0; b < batch; b++) {
    for (let h = 0; h < heads; h++) {
      for (let s = 0; s < seq; s++) {
        const row = ((b * heads + h) * seq + s) * size;
        for (let i = 0; i < half; i++) {
          const [p, q] = interleaved ? [row + 2 * i, row + 2 * i + 1] : [row + i, row + half + i];
          const [left, right] = [x.data[p] as number, x.data[q] as number];
          const [c, n] = [cos(b, s, i), sin(b, s, i)];
          out[p] = left * c - right * n;
          out[q] = right * c + left * n;
        }
      }
    }
  }
  return out;
}
