import { DecoderSession } from '@cqil/runtime-gpu';
import { expect, it } from 'vitest';
import { testModel } from '../../../../tools/src/test-model.js';
import { locateModel } from '../source/index.js';
import { ITEMS } from './items/index.js';
import { scoreItems } from './score-items.js';
import { loadTokenizer } from './tokenizer.js';

it('SmolLM2 gets of every kind more right than chance would, and not all', async () => {
  const tokenizer = await loadTokenizer(testModel('q4'));
  const decoder = await DecoderSession.open((await locateModel(testModel('q4'))).onnxFile);
  try {
    const { kinds } = await scoreItems(decoder, tokenizer, ITEMS);
    for (const { kind, right, total } of kinds) {
      expect(right, kind).toBeGreaterThan(0.45 * total);
      expect(right, kind).toBeLessThan(total);
    }
  } finally {
    await decoder.dispose();
  }
});
