import { describe, expect, it } from 'vitest';
import { fraction, oneText, wholeNumber } from './options.js';

describe('option values', () => {
  it('take whole numbers only as such', () => {
    expect(wholeNumber('start')('12')).toBe(12);
    expect(wholeNumber('start')(undefined)).toBeUndefined();
    for (const bad of ['-1', '1.5', '1e3', '0x10', 'x', '', ['1', '2'], '99999999999999999999', true]) {
      expect(() => wholeNumber('start')(bad)).toThrow(expect.objectContaining({ code: 'OPTION_INVALID' }));
    }
    expect(() => wholeNumber('group-size', 2)('1')).toThrow(/at least 2/);
  });

  it('take fractions within their range', () => {
    expect(fraction('threshold', 0, 1)('0.9')).toBe(0.9);
    for (const bad of ['2', 'x', '', ['0.1'], true]) {
      expect(() => fraction('threshold', 0, 1)(bad)).toThrow(
        expect.objectContaining({ code: 'OPTION_INVALID' }),
      );
    }
  });

  it('take one text', () => {
    expect(oneText('out')('a')).toBe('a');
    for (const bad of ['', ['a', 'b']]) expect(() => oneText('out')(bad)).toThrow(/one value/);
  });
});
