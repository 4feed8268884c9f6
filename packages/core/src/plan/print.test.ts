import fc from 'fast-check';
import { expect, it } from 'vitest';
import { printJson } from './print.js';

it('puts on one line what is short and flat', () => {
  expect(printJson({ a: [1, 2], b: 'x' })).toBe('{ "a": [1, 2], "b": "x" }');
  expect(printJson([])).toBe('[]');
  expect(printJson({ a: { b: 1 }, c: [] })).toBe('{\n  "a": { "b": 1 },\n  "c": []\n}');
  expect(printJson([[1], [2]])).toBe('[\n  [1],\n  [2]\n]');
});

it('breaks what is long', () => {
  const long = Array.from({ length: 40 }, (_, i) => i);
  expect(printJson(long).split('\n')).toHaveLength(42);
});

it('is the JSON it was given', () => {
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 5 }), (value) => {
      expect(JSON.parse(printJson(value))).toEqual(JSON.parse(JSON.stringify(value)));
    }),
  );
});
