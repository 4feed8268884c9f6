import { availableParallelism } from 'node:os';
import { describe, expect, it } from 'vitest';
import { loadLibrary } from '../session/native/library.js';
import { allowedProcessors, processorsOf } from './processors.js';

describe('processors', () => {
  it('are those that this process may run on', async () => {
    const allowed = allowedProcessors(await loadLibrary());
    if (process.platform !== 'linux') expect(allowed).toEqual([]);
    else expect(allowed).toHaveLength(availableParallelism());
    expect(allowed).toEqual([...new Set(allowed)].sort((a, b) => a - b));
  });

  it('are given to devices by their numbers', () => {
    expect(processorsOf(['cpu:0', 'cpu:1'], [4, 6, 7])).toEqual([4, 6]);
    expect(processorsOf(['cpu:2', 'cpu:0'], [4, 6, 7])).toEqual([7, 4]);
  });

  it('are left to the system where there are not enough', () => {
    expect(processorsOf(['cpu:0', 'cpu:1'], [3])).toEqual([undefined, undefined]);
    expect(processorsOf(['cpu:0', 'cuda:0'], [3, 4])).toEqual([undefined, undefined]);
    expect(processorsOf(['cpu:0'], [])).toEqual([undefined]);
  });
});
