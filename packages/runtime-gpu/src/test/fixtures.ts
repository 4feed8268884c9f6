import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** Path of a file under `testdata/`. */
export function testdata(path: string): string {
  return fileURLToPath(new URL(`../../../../testdata/${path}`, import.meta.url));
}

export interface GoldenLogits {
  readonly ids: number[];
  readonly base: { readonly argmax: number[]; readonly logits_last: number[] };
}

/** Logits of a tiny model by an independent implementation in another framework. */
export function golden(family: 'llama' | 'gpt2' | 'qwen2' | 'phi3'): GoldenLogits {
  return JSON.parse(readFileSync(testdata(`golden/tiny-${family}.json`), 'utf8')) as GoldenLogits;
}

export function maxAbsDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Number.POSITIVE_INFINITY;
  let worst = 0;
  for (let i = 0; i < a.length; i++) worst = Math.max(worst, Math.abs(a[i]! - b[i]!));
  return worst;
}
