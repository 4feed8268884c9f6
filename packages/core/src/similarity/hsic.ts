/** The least number of samples the unbiased HSIC estimator is defined for. */
export const MIN_HSIC_SAMPLES = 4;

/**
 * U-centres a Gram matrix (Székely and Rizzo 2014), keeping what lies above the diagonal.
 *
 * Off the diagonal, `U_ij = K_ij - r_i/(n-2) - r_j/(n-2) + s/((n-1)(n-2))`, with `r` the row sums and `s` the
 * total sum of K without its diagonal. The inner product of two U-centred matrices over `n(n-3)` is HSIC_1 of
 * Song et al. 2012 (JMLR 13); centring first and multiplying afterwards, instead of adding that equation's three
 * large terms, keeps the digits when all samples share a large mean, as residual streams do.
 *
 * @param kernel `[n, n]`, row-major, symmetric; the diagonal is not read.
 * @param out receives the `n(n-1)/2` elements above the diagonal, row by row, from `offset` on.
 * @returns the sum of `K_ij²` above the diagonal: the scale that rounding errors are measured against.
 */
export function uCentre(kernel: Float64Array, n: number, out: Float64Array, offset: number): number {
  const rowTerm = new Float64Array(n);
  let total = 0;
  for (let i = 0; i < n; i++) {
    let sum = 0;
    for (let j = 0; j < n; j++) if (j !== i) sum += kernel[i * n + j]!;
    rowTerm[i] = sum / (n - 2);
    total += sum;
  }
  const constant = total / ((n - 1) * (n - 2));
  let energy = 0;
  let at = offset;
  for (let i = 0; i < n; i++) {
    for (let j = i + 1; j < n; j++) {
      const k = kernel[i * n + j]!;
      energy += k * k;
      out[at++] = k - rowTerm[i]! - rowTerm[j]! + constant;
    }
  }
  return energy;
}

/** Number of elements that `uCentre` writes for `n` samples. */
export function triangleSize(n: number): number {
  return (n * (n - 1)) / 2;
}

/** Dot product of two runs of `length` elements of `x`. */
export function dot(x: Float64Array, a: number, b: number, length: number): number {
  let s0 = 0;
  let s1 = 0;
  let s2 = 0;
  let s3 = 0;
  let i = 0;
  for (; i + 3 < length; i += 4) {
    s0 += x[a + i]! * x[b + i]!;
    s1 += x[a + i + 1]! * x[b + i + 1]!;
    s2 += x[a + i + 2]! * x[b + i + 2]!;
    s3 += x[a + i + 3]! * x[b + i + 3]!;
  }
  for (; i < length; i++) s0 += x[a + i]! * x[b + i]!;
  return s0 + s1 + (s2 + s3);
}

/** The factor that turns a dot product of two triangles from `uCentre` into HSIC_1: both halves, over n(n-3). */
export function hsicScale(n: number): number {
  return 2 / (n * (n - 3));
}
