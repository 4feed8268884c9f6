import { z } from 'zod';
import { MetricError } from '../errors.js';

const size = z.int().min(1).max(1_000_000);
const count = z.int().min(0);
const numbers = z.array(z.number());

const stateSchema = z
  .strictObject({
    version: z.literal(1),
    points: size,
    hidden: size,
    ckaBatch: size.min(4),
    tokens: count,
    ckaTokens: count,
    cosine: numbers,
    angular: numbers,
    relative: numbers,
    hsic: numbers,
    energy: numbers,
    zeros: numbers,
    pending: z.array(numbers),
  })
  .check((context) => {
    const { points, hidden, ckaBatch } = context.value;
    const lengths = { energy: points, zeros: points } as const;
    for (const key of ['cosine', 'angular', 'relative', 'hsic', 'energy', 'zeros'] as const) {
      const expected = key === 'energy' || key === 'zeros' ? lengths[key] : points * points;
      if (context.value[key].length !== expected) {
        context.issues.push({
          code: 'custom',
          input: context.value,
          path: [key],
          message: `has ${context.value[key].length} numbers, not ${expected}`,
        });
      }
    }
    const { pending } = context.value;
    const filled = pending[0]?.length ?? 0;
    const fits =
      pending.length === points &&
      pending.every((row) => row.length === filled) &&
      filled % hidden === 0 &&
      filled / hidden < ckaBatch;
    if (!fits) {
      context.issues.push({
        code: 'custom',
        input: context.value,
        path: ['pending'],
        message: 'does not hold the same tokens for each point, fewer than one minibatch',
      });
    }
  });

/** What a `SimilarityAccumulator` has seen, as a JSON value. Its fields may change between versions. */
export type SimilarityState = z.infer<typeof stateSchema>;

/** @throws MetricError `METRIC_STATE` */
export function parseSimilarityState(state: unknown): SimilarityState {
  const parsed = stateSchema.safeParse(state);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw new MetricError('METRIC_STATE', 'This is not the state of a similarity accumulator.', {
    expected: 'a value that toState() gave',
    found: `${issue?.path.join('.') || 'the value'}: ${issue?.message ?? 'not valid'}`,
    hint: 'Measure again from the start.',
  });
}
