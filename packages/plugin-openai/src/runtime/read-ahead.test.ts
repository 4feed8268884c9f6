import { describe, expect, it } from 'vitest';
import { collect } from '../test/collect.js';
import { readAhead } from './read-ahead.js';

const turn = () => new Promise((resolve) => setImmediate(resolve));

/** Numbers from 0 on, and what became of their making. */
function numbers(count: number, failAt = Number.POSITIVE_INFINITY) {
  const log: string[] = [];
  const make = async function* (signal: AbortSignal) {
    try {
      for (let i = 0; i < count; i++) {
        log.push(`make ${i}`);
        await turn();
        signal.throwIfAborted();
        if (i === failAt) throw new Error('broken');
        yield i;
      }
    } finally {
      await turn();
      log.push('end');
    }
  };
  return { log, make };
}

describe('reading ahead', () => {
  const never = new AbortController().signal;

  it('gives all values in order, each while the next is made', async () => {
    const { log, make } = numbers(3);
    for await (const value of readAhead(make, never)) {
      log.push(`take ${value}`);
      await turn();
    }
    expect(log).toEqual(['make 0', 'make 1', 'take 0', 'make 2', 'take 1', 'take 2', 'end']);
    expect(await collect(readAhead(numbers(0).make, never))).toEqual([]);
  });

  it('ends the making when the reader leaves, and waits for it', async () => {
    const { log, make } = numbers(100);
    for await (const value of readAhead(make, never)) if (value === 2) break;
    expect(log).toEqual(['make 0', 'make 1', 'make 2', 'make 3', 'end']);
  });

  it('throws an error when its turn comes, not before', async () => {
    const { log, make } = numbers(5, 2);
    const seen: number[] = [];
    const run = async () => {
      for await (const value of readAhead(make, never)) {
        await turn();
        await turn();
        seen.push(value);
      }
    };
    await expect(run()).rejects.toThrow('broken');
    expect(seen).toEqual([0, 1]);
    expect(log.at(-1)).toBe('end');
  });

  it('ends with the reason of the signal from outside', async () => {
    const stop = new AbortController();
    const { log, make } = numbers(100);
    const run = async () => {
      for await (const value of readAhead(make, stop.signal))
        if (value === 3) stop.abort(new Error('enough'));
    };
    await expect(run()).rejects.toThrow('enough');
    expect(log.at(-1)).toBe('end');
  });
});
