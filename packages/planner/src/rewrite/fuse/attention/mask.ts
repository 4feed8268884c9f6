import type { Operation } from '../../../anatomy/dataflow.js';
import type { LayerAnatomy } from '../../../anatomy/index.js';
import { describeNode } from '../../../onnx/index.js';
import { type CacheStep, type GraphFacts, ran, refuse, usualSituation } from './facts.js';
import type { Numbers, Situation } from './probe.js';
import { filled, type Heads, isToken, isVisible } from './reference.js';

/** What happens to scores between the product and the softmax. */
export interface MaskRule {
  /** How many positions back a query sees, its own among them; `undefined` without a limit. */
  readonly window: number | undefined;
  /** `c` in `c · tanh(scores / c)`. */
  readonly softcap: number | undefined;
}

export interface MaskPlace {
  readonly layer: LayerAnatomy;
  readonly softmax: Operation;
  /** The products of queries with keys. */
  readonly scored: string;
  readonly scoredDims: readonly number[];
  readonly key: CacheStep;
  readonly value: CacheStep;
  readonly sizes: Heads & { readonly hidden: number };
}

/** What a masked score is at most; old exporters subtract 10,000. */
const MASKED = -9_999;
/** Memory that a long cache may take while its mask is tried. */
const LONG_BYTES = 128 * 2 ** 20;

/**
 * Finds out how scores are masked, by giving the graph scores of 0 and 1 and reading what reaches the softmax.
 *
 * The mask must be 0 or a large negative number, causal, hide what the attention mask hides, and perhaps all that is
 * further back than a window. A window is looked for behind a cache longer than every whole number that the mask is
 * computed from.
 *
 * @returns the rule, and what scores are multiplied by on the way
 * @throws Refused
 */
export async function readMask(
  facts: GraphFacts,
  place: MaskPlace,
): Promise<{ rule: MaskRule; factor: number }> {
  const { layer, softmax, scored, key, value, sizes } = place;
  const node = describeNode(softmax.node);
  const [masked = ''] = softmax.inputs;
  if (masked === scored) throw refuse(node, 'a causal mask added to the scores', 'no mask');
  const cuts = [scored, key.joined, value.joined];
  const usual = usualSituation(facts);
  const rank = { [scored]: place.scoredDims.length };
  return ran(node, () =>
    facts.probe.with(layer.input, cuts, [masked], { hidden: sizes.hidden, rank }, async (run) => {
      const maskOf = async (situation: Situation, score: number): Promise<Numbers> => {
        const { past, seq, padding } = situation;
        const total = past + seq;
        const dims =
          place.scoredDims.length === 3
            ? [padding.length * sizes.heads, seq, total]
            : [padding.length, sizes.heads, seq, total];
        const cache = [padding.length, sizes.kvHeads, total, sizes.headSize];
        const given = {
          [scored]: filled(dims, score),
          [key.joined]: filled(cache, 0),
          [value.joined]: filled(cache, 0),
        };
        return (await run(situation, given))[masked] as Numbers;
      };
      const { factor, softcap } = await readFactor(facts, place, usual, maskOf, node);
      const length = await longLength(facts, place, masked, node);
      const long = await maskOf({ past: length - 1, seq: 1, padding: [0] }, 0);
      const window = windowOf(long, node);
      const situations: Situation[] = [
        usual,
        { past: 0, seq: 6, padding: [0] },
        { past: Math.max(0, length - 4), seq: 4, padding: [0] },
      ];
      if (window !== undefined && window < 64)
        situations.push({ past: 2, seq: window + 4, padding: usual.padding });
      for (const situation of situations)
        checkMask(situation, await maskOf(situation, 0), sizes, window, node);
      return { rule: { window, softcap }, factor };
    }),
  );
}

type MaskOf = (situation: Situation, score: number) => Promise<Numbers>;

/** What a visible score is multiplied by, and how it is capped. */
async function readFactor(
  facts: GraphFacts,
  place: MaskPlace,
  situation: Situation,
  maskOf: MaskOf,
  node: string,
): Promise<{ factor: number; softcap: number | undefined }> {
  // The first key of the first query of the first sequence is visible: the sequence is not padded.
  const at = async (score: number) => (await maskOf(situation, score)).data[0] as number;
  const zero = await at(0);
  if (Math.abs(zero) > 1e-6) {
    throw refuse(
      node,
      'scores with a mask of 0 and large negative numbers',
      `${zero} is added to a visible one`,
    );
  }
  const small = await at(1);
  const cap = await capOf(facts, place);
  const factor = cap === undefined ? small : cap * Math.atanh(small / cap);
  if (!(factor > 0 && factor < Number.POSITIVE_INFINITY)) {
    throw refuse(node, 'scores that are scaled and masked', `${small} for a score of 1`);
  }
  // Far enough to see the tangent bend.
  const far = cap === undefined ? 64 : cap / (2 * factor);
  const large = await at(far);
  const expected = cap === undefined ? far * factor : cap * Math.tanh(0.5);
  if (Math.abs(large - expected) <= 1e-4 * expected) return { factor, softcap: cap };
  throw refuse(
    node,
    cap === undefined
      ? 'scores that are scaled and masked'
      : `scores capped at ${cap} by a hyperbolic tangent`,
    `${small} for a score of 1 and ${large} for ${far}`,
  );
}

/** `c` where scores are divided by it, go through a hyperbolic tangent and are multiplied by it. */
async function capOf(
  { dataflow, values }: GraphFacts,
  { softmax, scored }: MaskPlace,
): Promise<number | undefined> {
  const between = dataflow.reaching(softmax.inputs, (value) => value === scored);
  const behind = dataflow.reachableFrom([scored]);
  const tangent = [...between].find(({ op }) => op === 'Tanh');
  if (tangent === undefined || !behind.has(tangent)) return undefined;
  const [product] = dataflow.consumers(tangent.outputs[0] ?? '');
  const cap =
    product?.op === 'Mul' ? product.inputs.find((input) => input !== tangent.outputs[0]) : undefined;
  const number = cap === undefined ? undefined : await values.scalar(cap);
  if (number !== undefined && number > 0) return number;
  throw refuse(
    describeNode(tangent.node),
    'a product with a constant behind the hyperbolic tangent',
    product?.op ?? 'none',
  );
}

/** A cache that is longer than any window that the mask could have. */
async function longLength(
  facts: GraphFacts,
  { scored, key, sizes }: MaskPlace,
  masked: string,
  node: string,
): Promise<number> {
  const { dataflow, values } = facts;
  const before = dataflow.reaching([masked], (value) => value === scored || value === key.joined);
  let largest = 0;
  for (const operation of before) {
    for (const input of operation.inputs) {
      for (const number of (await values.numbers(input)) ?? []) {
        // Ends of slices that mean "to the end" are no windows.
        if (Number.isInteger(number) && number < 2 ** 31 - 1) largest = Math.max(largest, number);
      }
    }
  }
  const length = Math.max(64, largest + 8);
  const bytes = length * sizes.kvHeads * sizes.headSize * 4;
  if (bytes <= LONG_BYTES) return length;
  throw refuse(
    node,
    'a mask that can be tried',
    `a constant ${largest} that it is computed from, which may be a window`,
  );
}

function windowOf({ data, dims }: Numbers, node: string): number | undefined {
  const total = dims.at(-1) ?? 0;
  let visible = 0;
  while (visible < total && (data[total - 1 - visible] as number) > MASKED) visible++;
  if (visible === total) return undefined;
  if (visible > 0) return visible;
  throw refuse(node, 'a query that sees its own position', 'one that does not');
}

function checkMask(
  situation: Situation,
  { data }: Numbers,
  { heads }: Heads,
  window: number | undefined,
  node: string,
): void {
  const { past, seq, padding } = situation;
  const total = past + seq;
  let at = 0;
  for (let b = 0; b < padding.length; b++) {
    for (let h = 0; h < heads; h++) {
      for (let s = 0; s < seq; s++) {
        for (let t = 0; t < total; t++, at++) {
          if (!isToken(situation, b, s)) continue;
          const score = data[at] as number;
          const visible = isVisible(situation, b, s, t, window);
          if (visible ? Math.abs(score) <= 1e-6 : score <= MASKED) continue;
          const place = `position ${past + s} and key ${t}${padding[b] === 0 ? '' : ` of a sequence with ${padding[b]} of padding`}`;
          throw refuse(
            node,
            `a causal mask of 0 and large negative numbers${window === undefined ? '' : `, with a window of ${window}`}`,
            `${score} at ${place}`,
          );
        }
      }
    }
  }
}
