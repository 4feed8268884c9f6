import { expect, it } from 'vitest';
import { formatPath, show, valueAt } from './path.js';

it('writes paths as people do', () => {
  expect(formatPath([])).toBe('');
  expect(formatPath(['groups', 1, 'layers', 0])).toBe('groups[1].layers[0]');
  expect(formatPath(['a b', 'c'])).toBe('["a b"].c');
});

it('finds what stands at a path, among own properties only', () => {
  expect(valueAt({ a: [{ b: 1 }] }, ['a', 0, 'b'])).toBe(1);
  expect(valueAt({ a: 1 }, ['a', 'b'])).toBeUndefined();
  expect(valueAt({}, ['toString'])).toBeUndefined();
});

it('shows values in a few words', () => {
  expect(show('x'.repeat(100))).toHaveLength(62);
  expect([undefined, null, 1, 2n, [1], {}, () => 1].map(show)).toEqual([
    'nothing',
    'null',
    '1',
    '2n',
    'a list of 1',
    'an object',
    'a function',
  ]);
});
