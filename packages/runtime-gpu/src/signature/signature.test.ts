import { describe, expect, it } from 'vitest';
import type { ValueInfo } from '../session/types.js';
import { decoderSignature } from './signature.js';

const ids: ValueInfo = { name: 'input_ids', elementType: 'int64', shape: ['batch_size', 'sequence_length'] };
const logits: ValueInfo = {
  name: 'logits',
  elementType: 'float32',
  shape: ['batch_size', 'sequence_length', 9],
};
const kv = (name: string, shape: (number | string)[] = ['batch_size', 2, 'past', 16]): ValueInfo => ({
  name,
  elementType: 'float32',
  shape,
});

describe('decoderSignature', () => {
  it.each([
    ['past_key_values.0.key', 'present.0.key'],
    ['past_key_values.0.decoder.key', 'present.0.decoder.key'],
    ['past_key_values.0.key', 'present_key_values.0.key'],
    ['past_0', 'present_0'],
    ['past_conv.3', 'present_conv.3'],
  ])('pairs %s with %s', (past, present) => {
    const outputs = [logits, kv(present)];
    const { cache } = decoderSignature([ids, kv(past)], outputs);
    expect(cache).toHaveLength(1);
    expect(cache[0]).toMatchObject({ present, past: kv(past), batchAxis: 0, sequenceAxis: 2 });
  });

  it('finds the batch of a combined cache by its name', () => {
    const past = kv('past_0', [2, 'batch_size', 4, 'past_seq', 16]);
    expect(decoderSignature([ids, past], [logits, kv('present_0')]).cache[0]).toMatchObject({
      batchAxis: 1,
      sequenceAxis: 3,
    });
  });

  it('knows states that do not grow', () => {
    const past = kv('past_key_values.0.state', ['batch_size', 64, 3]);
    expect(
      decoderSignature([ids, past], [logits, kv('present.0.state')]).cache[0]!.sequenceAxis,
    ).toBeUndefined();
  });

  it('refuses what it cannot run, and says why', () => {
    const refused = (inputs: ValueInfo[], outputs: ValueInfo[]) => {
      try {
        decoderSignature(inputs, outputs);
      } catch (error) {
        return error as Error & { code: string };
      }
      throw new Error('accepted');
    };
    expect(refused([kv('pixel_values')], [logits]).code).toBe('NOT_A_DECODER');
    expect(refused([ids, kv('past_key_values.0.key')], [logits]).message).toContain('no "present.0.key"');
    expect(refused([ids, kv('encoder_hidden_states')], [logits]).message).toContain('encoder_hidden_states');
    expect(
      refused([ids, kv('past_0', ['batch_size', 'a', 'b', 16])], [logits, kv('present_0')]).message,
    ).toContain('fixed sizes');
  });
});
