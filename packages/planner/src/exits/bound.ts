/**
 * An upper bound of the probability that the mean of `count` independent losses in [0, 1] is at most `mean`, if their
 * expectation is at least `risk`: the smaller of Hoeffding's and Bentkus's bounds (Bates et al., arXiv 2101.02703,
 * proposition 5),
 *
 *     min( exp(−n h(min(R̂, α), α)),  e · P[Bin(n, α) ≤ ⌈n R̂⌉] ),   h(a, b) = a ln(a/b) + (1−a) ln((1−a)/(1−b))
 */
export function riskPValue(count: number, mean: number, risk: number): number {
  if (count === 0) return 1;
  const a = Math.min(mean, risk);
  const term = (x: number, y: number) => (x === 0 ? 0 : x * Math.log(x / y));
  const hoeffding = Math.exp(-count * (term(a, risk) + term(1 - a, 1 - risk)));
  // What rounding adds to a sum of losses must not cost a whole step.
  const successes = Math.ceil(count * mean - 1e-9);
  return Math.min(1, hoeffding, Math.E * binomialCdf(count, risk, successes));
}

/** P[Bin(n, p) ≤ k]. */
export function binomialCdf(n: number, p: number, k: number): number {
  if (k >= n) return 1;
  let sum = 0;
  let logChoose = 0;
  for (let i = 0; i <= k; i++) {
    if (i > 0) logChoose += Math.log((n - i + 1) / i);
    sum += Math.exp(logChoose + i * Math.log(p) + (n - i) * Math.log1p(-p));
  }
  return Math.min(1, sum);
}
