import { padLeft, seededRandom } from '@cqil/runtime-gpu';

/** One run of a model: new tokens, and which positions so far are tokens. */
export interface CaseStep {
  /** `[batch, seq]`, padding filled with id 0. */
  readonly ids: readonly (readonly number[])[];
  /** `[batch, past + seq]`, 0 at padding. */
  readonly mask: readonly (readonly number[])[];
}

export type CaseName = 'prefill' | 'decode' | 'batch' | 'padded' | 'text';

/** Tokens fed to a model in one or more steps, the cache handed on from each to the next. */
export interface TestCase {
  readonly name: CaseName;
  readonly steps: readonly CaseStep[];
}

export interface CaseOptions {
  /** Ids are drawn from 0 to `vocabulary - 1`. */
  readonly vocabulary: number;
  readonly seed?: number;
  /** Whether several sequences can be run at once. */
  readonly batches: boolean;
  /** Whether a batch may be padded on the left. */
  readonly padding: boolean;
  /** Tokens of a real text, run as a further case. */
  readonly text?: readonly number[];
  /** Fewer and shorter runs. */
  readonly short?: boolean;
}

/**
 * The inputs that two models are compared on: a prompt at once; a prompt and then token by token; two sequences
 * of one length, or of different length with padding on the left where the model takes that; a real text.
 * The same options give the same tokens.
 */
export function makeCases(options: CaseOptions): TestCase[] {
  const random = seededRandom(options.seed ?? 1);
  const draw = (count: number) =>
    Array.from({ length: count }, () => Math.floor(random() * options.vocabulary));
  const short = options.short === true;
  const cases: TestCase[] = [
    makeCase('prefill', [draw(short ? 16 : 24)], []),
    makeCase('decode', [draw(12)], [draw(short ? 4 : 9)]),
  ];
  if (options.padding) cases.push(makeCase('padded', [draw(11), draw(6)], [draw(3), draw(3)]));
  else if (options.batches) cases.push(makeCase('batch', [draw(8), draw(8)], [draw(3), draw(3)]));
  const text = options.text ?? [];
  // The prompt is most of the text: attention over many positions is what short random prompts do not show.
  if (text.length > 1) {
    const prompt = Math.max(1, text.length - 8);
    cases.push(makeCase('text', [text.slice(0, prompt)], [text.slice(prompt)]));
  }
  return cases;
}

/**
 * @param prompts one a sequence
 * @param next what follows each prompt, fed one by one; all of one length
 */
export function makeCase(
  name: CaseName,
  prompts: readonly (readonly number[])[],
  next: readonly (readonly number[])[],
): TestCase {
  const prompt = padLeft(prompts);
  const steps: CaseStep[] = [prompt];
  let { mask } = prompt;
  for (let at = 0; at < (next[0]?.length ?? 0); at++) {
    mask = mask.map((row) => [...row, 1]);
    steps.push({ ids: next.map((row) => [row[at] as number]), mask });
  }
  return { name, steps };
}
