/**
 * Cosine of the angle between two vectors, from their dot product and squared norms.
 *
 * A zero vector has no direction. Two zero vectors are equal, so their cosine is taken as 1; one zero vector
 * beside another vector counts as unrelated, 0.
 */
export function cosineOf(dotProduct: number, squaredA: number, squaredB: number): number {
  if (squaredA === 0 || squaredB === 0) return squaredA === squaredB ? 1 : 0;
  // One square root of the product: for equal norms it is exact, so equal vectors have cosine 1, not 1 - 2^-53.
  const cosine = dotProduct / Math.sqrt(squaredA * squaredB);
  return Math.min(1, Math.max(-1, cosine));
}

/** Angular distance, arccos(cosine) / π: 0 for the same direction, 0.5 for orthogonal, 1 for opposite. */
export function angularOf(cosine: number): number {
  return Math.acos(cosine) / Math.PI;
}
