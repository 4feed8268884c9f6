import { EventEmitter } from 'node:events';
import { expect, it } from 'vitest';
import { interruption } from './interruption.js';

it('aborts on the first signal and leaves on the second', () => {
  const exits: unknown[] = [];
  const process = Object.assign(new EventEmitter(), {
    exit: (code?: number | string | null) => {
      exits.push(code);
      throw new Error('exit');
    },
  });
  const { signal, exitCode } = interruption(process as never);
  expect(exitCode()).toBeUndefined();
  process.emit('SIGINT');
  expect(signal.aborted).toBe(true);
  expect((signal.reason as Error).name).toBe('AbortError');
  expect(exitCode()).toBe(130);
  expect(() => process.emit('SIGTERM')).toThrow('exit');
  expect(exits).toEqual([130]);
});
