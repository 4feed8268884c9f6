/**
 * All dot products between `rows` vectors of length `width`, in float64.
 *
 * Row r starts at `x[base + r * stride]`. One kernel serves both uses here: the tokens of one point
 * (`stride = width`) and one token at all points (`stride = tokens * width`), so that nothing is copied first.
 *
 * @param out `[rows, rows]`, row-major; the whole symmetric matrix is written.
 */
export function gram(
  x: Float32Array,
  base: number,
  stride: number,
  rows: number,
  width: number,
  out: Float64Array,
): void {
  const last = rows - 1;
  // 3 x 3 blocks: nine running sums and six loads fit the 16 vector registers of x86-64, which makes this
  // about as fast as scalar code gets. Rows past the end repeat the last one and their results are not
  // stored, so every sum runs in the same order and equal rows give bitwise equal products.
  for (let i = 0; i < rows; i += 3) {
    const i1 = Math.min(i + 1, last);
    const i2 = Math.min(i + 2, last);
    const a0 = base + i * stride;
    const a1 = base + i1 * stride;
    const a2 = base + i2 * stride;
    for (let j = i; j < rows; j += 3) {
      const j1 = Math.min(j + 1, last);
      const j2 = Math.min(j + 2, last);
      const b0 = base + j * stride;
      const b1 = base + j1 * stride;
      const b2 = base + j2 * stride;
      let s00 = 0;
      let s01 = 0;
      let s02 = 0;
      let s10 = 0;
      let s11 = 0;
      let s12 = 0;
      let s20 = 0;
      let s21 = 0;
      let s22 = 0;
      for (let c = 0; c < width; c++) {
        const u0 = x[a0 + c]!;
        const u1 = x[a1 + c]!;
        const u2 = x[a2 + c]!;
        const v0 = x[b0 + c]!;
        const v1 = x[b1 + c]!;
        const v2 = x[b2 + c]!;
        s00 += u0 * v0;
        s01 += u0 * v1;
        s02 += u0 * v2;
        s10 += u1 * v0;
        s11 += u1 * v1;
        s12 += u1 * v2;
        s20 += u2 * v0;
        s21 += u2 * v1;
        s22 += u2 * v2;
      }
      // Clamped rows coincide with real ones here, and hold the same value.
      out[i * rows + j] = s00;
      out[i * rows + j1] = s01;
      out[i * rows + j2] = s02;
      out[i1 * rows + j] = s10;
      out[i1 * rows + j1] = s11;
      out[i1 * rows + j2] = s12;
      out[i2 * rows + j] = s20;
      out[i2 * rows + j1] = s21;
      out[i2 * rows + j2] = s22;
    }
  }
  for (let r = 1; r < rows; r++) for (let c = 0; c < r; c++) out[r * rows + c] = out[c * rows + r]!;
}
