import { expect, it } from 'vitest';
import { table } from './table.js';

it('lines columns up, numbers to the right', () => {
  expect(
    table([
      ['', 'original', 'CQIL'],
      ['layers', '30', '22'],
      ['decode', '9.31 ms', '-'],
    ]),
  ).toBe(['        original  CQIL', 'layers        30    22', 'decode   9.31 ms  -'].join('\n'));
});
