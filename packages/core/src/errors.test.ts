import { expect, it } from 'vitest';
import { CqilError, MetricError, PlanError } from './errors.js';

it('says what was expected, what was found and what to do', () => {
  const error = new MetricError('CODE', 'It failed.', { expected: 'a', found: 'b', hint: 'c', cause: 1 });
  expect(error).toBeInstanceOf(CqilError);
  expect(error).toMatchObject({
    name: 'MetricError',
    code: 'CODE',
    expected: 'a',
    found: 'b',
    hint: 'c',
    cause: 1,
  });
  expect(error.message).toBe('It failed.\n  expected: a\n  found: b\n  what to do: c');
});

it('of a plan names the place', () => {
  expect(new PlanError('CODE', 'wrong', { path: 'groups[0]' })).toMatchObject({
    path: 'groups[0]',
    message: 'groups[0]: wrong',
  });
  expect(new PlanError('CODE', 'wrong').message).toBe('wrong');
});
