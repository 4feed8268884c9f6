/** What an item asks for. */
export const ITEM_KINDS = ['cloze', 'arithmetic', 'copying', 'questions'] as const;
export type ItemKind = (typeof ITEM_KINDS)[number];

/** A text and ways to go on, one of them right. */
export interface Item {
  readonly kind: ItemKind;
  /** Ends without white space. */
  readonly context: string;
  /** Each begins with the white space between it and the context. All different. */
  readonly choices: readonly string[];
  /** Index of the right choice. */
  readonly answer: number;
}

/** A context, the right continuation, and wrong ones. */
export type Written = readonly [context: string, right: string, ...wrong: string[]];

/** Makes items of a kind, the right answers in turn at every place. */
export function itemsOf(
  kind: ItemKind,
  written: readonly Written[],
  prompt = (context: string) => context,
): Item[] {
  return written.map(([context, right, ...wrong], i) => {
    const answer = i % (wrong.length + 1);
    const choices = [...wrong.slice(0, answer), right, ...wrong.slice(answer)].map((choice) => ` ${choice}`);
    return { kind, context: prompt(context), choices, answer };
  });
}
