// How long all pairs of layer inputs take, beside the plain triple loop for the cosine alone, interleaved in one run.
//
//   npx nx build @cqil/core && node tools/bench/similarity.mjs [points] [hidden] [tokens] [runs]
import { SimilarityAccumulator } from '@cqil/core';

const [points = 31, hidden = 576, tokens = 4096, runs = 5] = process.argv.slice(2).map(Number);
const batch = Math.min(tokens, 512);

let state = 1;
const activations = Array.from({ length: points }, () =>
  Float32Array.from({ length: batch * hidden }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32 - 0.3;
  }),
);

function plainCosine() {
  let sum = 0;
  for (let i = 0; i < points; i++) {
    for (let j = i; j < points; j++) {
      const [a, b] = [activations[i], activations[j]];
      for (let t = 0; t < batch; t++) {
        let [product, squaredA, squaredB] = [0, 0, 0];
        for (let c = t * hidden; c < (t + 1) * hidden; c++) {
          product += a[c] * b[c];
          squaredA += a[c] * a[c];
          squaredB += b[c] * b[c];
        }
        sum += product / Math.sqrt(squaredA * squaredB);
      }
    }
  }
  return sum;
}

function allMetrics(ckaBatch) {
  const accumulator = new SimilarityAccumulator({ points, hidden, ckaBatch });
  for (let seen = 0; seen < tokens; seen += batch) accumulator.add(activations);
  return accumulator.finish();
}

const candidates = {
  'plain loops, cosine only': () => {
    for (let seen = 0; seen < tokens; seen += batch) plainCosine();
  },
  'all metrics, ckaBatch 64': () => allMetrics(64),
  'all metrics, ckaBatch 128': () => allMetrics(128),
  'all metrics, ckaBatch 256': () => allMetrics(256),
};
const seconds = Object.fromEntries(Object.keys(candidates).map((name) => [name, []]));
for (let run = 0; run < runs; run++) {
  for (const [name, work] of Object.entries(candidates)) {
    const start = performance.now();
    work();
    seconds[name].push((performance.now() - start) / 1000);
  }
}
console.log(`${points} points, hidden ${hidden}, ${tokens} tokens, ${runs} runs; seconds`);
for (const [name, times] of Object.entries(seconds)) {
  times.sort((a, b) => a - b);
  const [least, median, most] = [times[0], times[Math.floor(times.length / 2)], times.at(-1)];
  console.log(
    `${name.padEnd(26)} median ${median.toFixed(2)}  min ${least.toFixed(2)}  max ${most.toFixed(2)}`,
  );
}
