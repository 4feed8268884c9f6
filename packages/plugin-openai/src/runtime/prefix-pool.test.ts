import type { StepCache, StepModel } from '@cqil/runtime-gpu';
import { describe, expect, it } from 'vitest';
import { PrefixPool } from './prefix-pool.js';

const model = {} as StepModel;
const freed: number[] = [];
const cacheOf = (name: number): StepCache => ({
  length: 0,
  truncate: () => cacheOf(name),
  dispose: () => freed.push(name),
});
const run = (from: number, count: number) => Array.from({ length: count }, (_, i) => from + i);

function leave(pool: PrefixPool, name: number, ids: readonly number[]): void {
  const { cache } = pool.take([]);
  cache.put(model, { ids, cache: cacheOf(name) });
  pool.put(cache);
}

describe('PrefixPool', () => {
  it('hands out the cache that shares most, to one request at a time', () => {
    const pool = new PrefixPool(4);
    leave(pool, 1, run(0, 20));
    leave(pool, 2, run(0, 30));
    const first = pool.take(run(0, 40));
    expect([first.shared, first.cache.ids.length]).toEqual([30, 30]);
    expect(pool.take(run(0, 40)).shared).toBe(20);
    expect(pool.take(run(0, 40)).shared).toBe(0);
  });

  it('leaves the last token of a prompt to be read', () => {
    const pool = new PrefixPool(4);
    leave(pool, 1, run(0, 20));
    expect(pool.take(run(0, 20)).shared).toBe(19);
  });

  it('takes no cache from a conversation for a little that all prompts share', () => {
    const pool = new PrefixPool(4);
    leave(pool, 1, [...run(0, 20), ...run(500, 100)]);
    leave(pool, 2, run(0, 10));
    expect(pool.take([...run(0, 20), 900, 901]).shared).toBe(0);
  });

  it('keeps those that were used last, and frees the rest', () => {
    freed.length = 0;
    const pool = new PrefixPool(2);
    for (const name of [1, 2, 3]) leave(pool, name, run(100 * name, 20));
    expect(freed).toEqual([1]);
    pool.put(pool.take(run(200, 30)).cache);
    leave(pool, 4, run(400, 20));
    expect(freed).toEqual([1, 3]);
    pool.dispose();
    expect(freed).toEqual([1, 3, 2, 4]);
    leave(pool, 5, run(500, 20));
    expect(freed.at(-1)).toBe(5);
  });
});
