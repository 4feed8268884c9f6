import { readFileSync } from 'node:fs';
import path from 'node:path';
import { type Bypass, type Plan, parsePlan } from '@cqil/core';

/** Path of a file under `testdata/`. */
export function testdata(file: string): string {
  return path.resolve(import.meta.dirname, '../../../../../testdata', file);
}

interface GoldenPlan {
  readonly groups: number[][];
  readonly bypass: Bypass;
  readonly argmax: number[];
  readonly logits_last: number[];
  readonly max_abs_change: number;
}

export interface Golden {
  readonly ids: number[];
  readonly plans: GoldenPlan[];
}

/** Logits of the method by an independent implementation in another framework. */
export function golden(family: string): Golden {
  return JSON.parse(readFileSync(testdata(`golden/tiny-${family}.json`), 'utf8')) as Golden;
}

/** A plan for the tiny models, which have six layers. */
export function tinyPlan(groups: readonly (readonly number[])[], bypass: Bypass): Plan {
  return parsePlan({ version: 1, layers: 6, groups: groups.map((layers) => ({ layers, bypass })) });
}
