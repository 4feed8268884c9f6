import { describe, expect, it } from 'vitest';
import { calledByGenerate } from './generate-frame.js';

const here = import.meta.dirname;
const ask = () => calledByGenerate([here]);

class Model {
  generate() {
    return this.forward();
  }
  forward() {
    return ask();
  }
  async generateLater() {
    await null;
    return this.generate();
  }
}

describe('calledByGenerate', () => {
  it('sees a method of that name, at any depth', async () => {
    expect(new Model().generate()).toBe(true);
    expect(await new Model().generateLater()).toBe(true);
    const deep = (depth: number): boolean => (depth === 0 ? new Model().generate() : deep(depth - 1));
    expect(deep(100)).toBe(true);
  });

  it('does not take a direct call for one', () => {
    expect(new Model().forward()).toBe(false);
  });

  it('does not take a program for Transformers.js', () => {
    const generate = () => calledByGenerate(['/nowhere', `${here}-other`]);
    expect(generate()).toBe(false);
  });

  it('leaves how errors show their stack as it was', () => {
    const before = [Error.stackTraceLimit, Error.prepareStackTrace];
    ask();
    expect([Error.stackTraceLimit, Error.prepareStackTrace]).toEqual(before);
  });
});
