import { describe, expect, it } from 'vitest';
import { progressDisplay } from './progress.js';

function recorder(isTTY: boolean) {
  let text = '';
  return { sink: { isTTY, write: (more: string) => (text += more) }, text: () => text };
}

describe('progress without a terminal', () => {
  it('writes a line at the start, at most one in five seconds, and one at the end', () => {
    const { sink, text } = recorder(false);
    let time = 0;
    const { onProgress } = progressDisplay(sink, () => time);
    for (let done = 0; done <= 1000; done++) {
      time = done * 12;
      onProgress({ phase: 'reading weights', done: done * 1e6, total: 1e9, unit: 'bytes' });
    }
    expect(text().split('\n')).toEqual([
      'reading weights: 0 B of 1 GB (0 %)',
      'reading weights: 417 MB of 1 GB (41 %)',
      'reading weights: 834 MB of 1 GB (83 %)',
      'reading weights: 1 GB of 1 GB (100 %), done in 12.0 s',
      '',
    ]);
  });

  it('copes with an unknown total and with phases that follow each other', () => {
    const { sink, text } = recorder(false);
    const { onProgress } = progressDisplay(sink, () => 0);
    onProgress({ phase: 'waiting', done: 3, total: 0 });
    onProgress({ phase: 'measuring', done: 1, total: 4, unit: 'layers' });
    expect(text()).toBe('waiting: 3\nmeasuring: 1 of 4 layers (25 %)\n');
  });
});
