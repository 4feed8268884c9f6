import { expect, it } from 'vitest';
import { facts, table } from './table.js';

it('lines columns up, numbers to the right', () => {
  expect(
    table([
      ['', 'original', 'CQIL'],
      ['layers', '30', '22'],
      ['decode', '9.31 ms', '-'],
    ]),
  ).toBe(['        original  CQIL', 'layers        30    22', 'decode   9.31 ms  -'].join('\n'));
});

it('lists facts and breaks long ones', () => {
  expect(
    facts(
      [
        ['layers', '30'],
        ['operators', 'MatMul × 151, Add × 60'],
      ],
      24,
    ),
  ).toBe(['layers     30', 'operators  MatMul × 151,', '           Add × 60'].join('\n'));
});
