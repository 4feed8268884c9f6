import { describe, expect, it, vi } from 'vitest';
import type { CacheState } from './cache-state.js';
import { SharedMemory } from './memory.js';
import { PrefixStore } from './prefix-store.js';
import { Tokens } from './tokens.js';

const session = {};

/** A cache of so many bytes a token, that nobody else holds. */
function cacheOf(tokens: Tokens | number[], bytes = 1) {
  const known = tokens instanceof Tokens ? tokens : Tokens.of(tokens, undefined);
  const free = vi.fn();
  const state = {
    tokens: known,
    length: known.length,
    bytes: known.length * bytes,
    memory: new SharedMemory(free),
  } as unknown as CacheState;
  return { state, free };
}

const range = (length: number, from = 0) => Array.from({ length }, (_, i) => from + i);

describe('PrefixStore', () => {
  it('finds the cache that shares the most, up to what is wanted', () => {
    const store = new PrefixStore(1000);
    const short = cacheOf([...range(10), 77]);
    const long = cacheOf([...range(20), 88]);
    store.put(session, short.state);
    store.put(session, long.state);
    expect(store.find(session, range(30), undefined, 29)).toEqual({ state: long.state, length: 20 });
    expect(store.find(session, range(30), undefined, 12)?.length).toBe(12);
    expect(store.find(session, [...range(10), 77, 1], undefined, 11)).toEqual({
      state: short.state,
      length: 11,
    });
    expect(store.find(session, range(4), undefined, 3)).toBeUndefined();
    expect(store.find({}, range(30), undefined, 29)).toBeUndefined();
  });

  it('keeps a cache in place of what it goes on from', () => {
    const store = new PrefixStore(1000);
    const first = cacheOf(range(10));
    const other = cacheOf(range(10, 50));
    const next = cacheOf(range(11));
    for (const { state } of [first, other, next]) store.put(session, state);
    expect(first.free).toHaveBeenCalledOnce();
    expect(other.free).not.toHaveBeenCalled();
    expect(store.bytes).toBe(21);
  });

  it('holds no more than it may, the latest first', () => {
    const store = new PrefixStore(25);
    const caches = [cacheOf(range(10)), cacheOf(range(10, 20)), cacheOf(range(10, 40))] as const;
    for (const { state } of caches) store.put(session, state);
    expect(caches.map(({ free }) => free.mock.calls.length)).toEqual([1, 0, 0]);
    expect(store.bytes).toBe(20);
    const large = cacheOf(range(26));
    store.put(session, large.state);
    expect(store.bytes).toBe(20);
  });

  it('frees a cache when nobody else holds it', () => {
    const store = new PrefixStore(1000);
    const { state, free } = cacheOf(range(10));
    state.memory.retain();
    store.put(session, state);
    store.drop(session);
    expect(free).not.toHaveBeenCalled();
    state.memory.release();
    expect(free).toHaveBeenCalledOnce();
    expect(store.has(session)).toBe(false);
  });

  it('lets the garbage collector free elements that the program has in hand', () => {
    const store = new PrefixStore(1000);
    const { state, free } = cacheOf(range(10));
    store.put(session, state);
    state.memory.exposed = true;
    store.clear();
    expect(free).not.toHaveBeenCalled();
  });
});
