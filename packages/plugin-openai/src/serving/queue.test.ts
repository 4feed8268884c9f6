import { describe, expect, it, vi } from 'vitest';
import { QueueFullError, TurnQueue } from './queue.js';

const stay = () => new AbortController().signal;

describe('TurnQueue', () => {
  it('gives turns in the order in which callers came', async () => {
    const queue = new TurnQueue(10);
    const order: number[] = [];
    await Promise.all(
      [1, 2, 3, 4].map(async (caller) => {
        const end = await queue.turn(stay());
        order.push(caller);
        await new Promise((resolve) => setTimeout(resolve, 5 - caller));
        expect(order.at(-1)).toBe(caller);
        end();
      }),
    );
    expect(order).toEqual([1, 2, 3, 4]);
    expect(queue.waiting).toBe(0);
  });

  it('gives as many turns at a time as there are places', async () => {
    const queue = new TurnQueue(10);
    const order: number[] = [];
    const first = [await queue.turn(stay())];
    const rest = [1, 2, 3].map((caller) =>
      queue.turn(stay()).then((end) => {
        order.push(caller);
        return end;
      }),
    );
    queue.places = 3;
    await Promise.resolve();
    expect([queue.running, queue.waiting]).toEqual([3, 1]);
    first[0]!();
    first[0]!();
    await Promise.all(rest);
    expect(order).toEqual([1, 2, 3]);
    for (const turn of rest) (await turn)();
    expect([queue.running, queue.waiting]).toEqual([0, 0]);
  });

  it('refuses at once when it is full, and says when to come again', async () => {
    vi.useFakeTimers({ toFake: ['performance'] });
    try {
      const queue = new TurnQueue(1);
      const end = await queue.turn(stay());
      const second = queue.turn(stay());
      const refused = await queue.turn(stay()).catch((cause: unknown) => cause);
      expect(refused).toBeInstanceOf(QueueFullError);
      expect((refused as QueueFullError).retryAfter).toBe(2);
      vi.advanceTimersByTime(21_000);
      end();
      const third = queue.turn(stay());
      expect(((await queue.turn(stay()).catch((cause: unknown) => cause)) as QueueFullError).retryAfter).toBe(
        14,
      );
      (await second)();
      (await third)();
    } finally {
      vi.useRealTimers();
    }
  });

  it('lets a caller leave before its turn', async () => {
    const queue = new TurnQueue(1);
    const end = await queue.turn(stay());
    const leaving = new AbortController();
    const left = queue.turn(leaving.signal);
    leaving.abort(new Error('gone'));
    await expect(left).rejects.toThrow('gone');
    const next = queue.turn(stay());
    end();
    (await next)();
    await expect(queue.turn(AbortSignal.abort(new Error('gone')))).rejects.toThrow('gone');
    (await queue.turn(stay()))();
  });

  it('lets nobody in between the end of a turn and the next', async () => {
    const queue = new TurnQueue(1);
    const end = await queue.turn(stay());
    const waiting = queue.turn(stay());
    end();
    end();
    let late = false;
    const newcomer = queue.turn(stay()).then((done) => {
      late = true;
      return done;
    });
    const done = await waiting;
    await new Promise((resolve) => setTimeout(resolve, 5));
    expect(late).toBe(false);
    done();
    (await newcomer)();
  });
});
