import { UsageError } from '@cqil/core';
import {
  type DecoderSignature,
  integerTensor,
  positions,
  type Session,
  type TensorValue,
  zeroTensor,
} from '@cqil/runtime-gpu';
import type { CaseStep, TestCase } from './cases.js';

/** What a model, or a part of one, gave for one case. */
export interface CaseRun {
  /** By step, then by name of the output. */
  readonly steps: readonly Readonly<Record<string, TensorValue>>[];
}

/**
 * Runs a case through a model or a part of one. Whatever inputs of a decoder the graph has are filled: tokens,
 * masks, positions, and the cache, which starts empty and is handed on from step to step.
 *
 * @param signature of the whole model: it says what the inputs are for
 * @param outputs to be kept; those of the cache are handed on whether they are kept or not
 * @param cut by step, values of inputs that the whole model does not have
 * @param known by step, what other parts gave: exporters let every layer read the length of the first one's cache
 */
export async function runCase(
  session: Session,
  signature: DecoderSignature,
  testCase: TestCase,
  outputs: readonly string[],
  cut: readonly Readonly<Record<string, TensorValue>>[] = [],
  known: readonly Readonly<Record<string, TensorValue>>[] = [],
): Promise<CaseRun> {
  const pairs = signature.cache.filter(({ past }) =>
    session.inputs.some((input) => input.name === past.name),
  );
  const given = new Set(session.outputs.map((output) => output.name));
  const fetches = [...new Set([...outputs, ...pairs.map(({ present }) => present)])].filter((name) =>
    given.has(name),
  );
  const steps: Record<string, TensorValue>[] = [];
  let before: Readonly<Record<string, TensorValue>> | undefined;
  for (const [index, step] of testCase.steps.entries()) {
    const all: Record<string, TensorValue> = { ...decoderInputs(signature, step), ...cut[index] };
    for (const pair of pairs) {
      all[pair.past.name] =
        before?.[pair.present] ?? known[index - 1]?.[pair.present] ?? blankCache(pair, step);
    }
    const feeds: Record<string, TensorValue> = {};
    for (const { name } of session.inputs) {
      const value = all[name];
      if (value !== undefined) feeds[name] = value;
    }
    const results: Record<string, TensorValue> = await session.run(feeds, fetches);
    steps.push(results);
    before = results;
  }
  return { steps };
}

function decoderInputs(signature: DecoderSignature, step: CaseStep): Record<string, TensorValue> {
  const batch = step.ids.length;
  const count = step.ids[0]?.length ?? 0;
  const feeds: Record<string, TensorValue> = {};
  const give = (input: DecoderSignature['positionIds'], rows: readonly (readonly number[])[]) => {
    if (input !== undefined)
      feeds[input.name] = integerTensor(input.elementType, rows.flat(), [batch, rows[0]?.length ?? 0]);
  };
  give(signature.inputIds, step.ids);
  give(signature.attentionMask, step.mask);
  give(signature.positionIds, positions(step.mask, count));
  const keep = signature.logitsToKeep;
  if (keep !== undefined) {
    feeds[keep.name] = integerTensor(keep.elementType, [0], keep.shape.length === 0 ? [] : [1]);
  }
  return feeds;
}

/** A cache of zeros: of no positions before the first step, of as many as there were before a later one. */
function blankCache(pair: DecoderSignature['cache'][number], step: CaseStep): TensorValue {
  const { past, batchAxis, sequenceAxis } = pair;
  const dims = past.shape.map((dim, axis) => {
    if (axis === sequenceAxis) return (step.mask[0]?.length ?? 0) - (step.ids[0]?.length ?? 0);
    if (axis === batchAxis) return step.ids.length;
    if (typeof dim === 'number') return dim;
    throw new UsageError('VERIFY_CACHE_SHAPE', `The cache input "${past.name}" has no fixed size.`, {
      expected: 'a shape that differs in batch and sequence only',
      found: `[${past.shape.join(', ')}]`,
    });
  });
  return zeroTensor(past.elementType, dims);
}
