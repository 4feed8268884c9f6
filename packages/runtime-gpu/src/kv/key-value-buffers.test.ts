import { describe, expect, it } from 'vitest';
import type { BindableSession } from '../session/native/bindable-session.js';
import { zeroTensor } from '../tensor/make.js';
import { type BufferShape, KeyValueBuffers } from './key-value-buffers.js';

const LAYERS = 6;
const shapes: BufferShape[] = Array.from({ length: LAYERS }, (_, layer) =>
  ['key', 'value'].map(
    (name): BufferShape => ({
      past: `past.${layer}.${name}`,
      present: `present.${layer}.${name}`,
      type: 'float32',
      heads: 2,
      size: 4,
      group: `${layer}`,
    }),
  ),
).flat();

/** Counts the pieces of memory that are asked for. */
function counting() {
  let made = 0;
  const session = {
    zeros: (...of: Parameters<typeof zeroTensor>) => {
      made += 1;
      return zeroTensor(...of);
    },
  } as unknown as BindableSession;
  return { session, made: () => made };
}

describe('memory of a cache', () => {
  it.each([1, 63, 64, 100, 2080])('never moves within the %i positions that were asked for', (positions) => {
    const { session, made } = counting();
    const buffers = new KeyValueBuffers(session, shapes, 1, positions);
    for (let position = 1; position <= positions; position++) buffers.reserve(position);
    expect(made()).toBe(shapes.length);
  });

  it('moves a layer or two at a time past them, before there is no more room', () => {
    const { session, made } = counting();
    const buffers = new KeyValueBuffers(session, shapes, 1, 128);
    const steps: number[] = [];
    for (let position = 128; position < 600; position++) {
      const before = made();
      buffers.reserve(position);
      steps.push(made() - before);
    }
    expect(Math.max(...steps)).toBe(2);
    expect(steps.reduce((a, b) => a + b)).toBeGreaterThanOrEqual(3 * shapes.length);
  });
});
