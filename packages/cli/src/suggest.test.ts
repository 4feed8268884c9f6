import { expect, it } from 'vitest';
import { suggestion } from './suggest.js';

it('suggests what is near and nothing that is far', () => {
  const known = ['fetch', 'inspect', 'rewrite', 'verify'];
  expect(suggestion('inpsect', known)).toBe('inspect');
  expect(suggestion('verfy', known)).toBe('verify');
  expect(suggestion('download', known)).toBeUndefined();
  expect(suggestion('x', [])).toBeUndefined();
});
