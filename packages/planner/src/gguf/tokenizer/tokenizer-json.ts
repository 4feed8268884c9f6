import { TokenType, type Vocabulary } from './vocabulary.js';

/** The parts of Hugging Face's `tokenizer.json` that are written here. */
export interface TokenizerJson {
  readonly version: '1.0';
  readonly truncation: null;
  readonly padding: null;
  readonly added_tokens: readonly AddedToken[];
  readonly normalizer: JsonObject | null;
  readonly pre_tokenizer: JsonObject | null;
  readonly post_processor: JsonObject | null;
  readonly decoder: JsonObject;
  readonly model: JsonObject;
}

export type JsonObject = { readonly [key: string]: unknown };

export interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly single_word: boolean;
  readonly lstrip: boolean;
  readonly rstrip: boolean;
  readonly normalized: boolean;
  readonly special: boolean;
}

/** Control tokens are special (left out of decoded text); user-defined ones are matched whole, and shown. */
export function addedTokens({ tokens, types }: Vocabulary, unknownIsSpecial: boolean): AddedToken[] {
  const added: AddedToken[] = [];
  for (const [id, content] of tokens.entries()) {
    const type = types[id];
    const special = type === TokenType.CONTROL || (unknownIsSpecial && type === TokenType.UNKNOWN);
    // An empty string would match everywhere.
    if ((!special && type !== TokenType.USER_DEFINED) || content === '') continue;
    added.push({ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special });
  }
  return added;
}

/** Tokens to ids, safe for tokens such as `__proto__`. Of two equal tokens the later one counts. */
export function vocabularyObject({ tokens }: Vocabulary): Record<string, number> {
  const vocabulary: Record<string, number> = Object.create(null);
  for (const [id, token] of tokens.entries()) vocabulary[token] = id;
  return vocabulary;
}

/** Sets begin and end tokens around each text, or `null` where neither is wanted. */
export function templateProcessor(
  { tokens, special }: Vocabulary,
  addBos: boolean,
  addEos: boolean,
): JsonObject | null {
  const bos = addBos && special.bos !== undefined ? [tokens[special.bos]!] : [];
  const eos = addEos && special.eos !== undefined ? [tokens[special.eos]!] : [];
  if (bos.length + eos.length === 0) return null;
  const sequence = (id: 'A' | 'B', type: number) => [
    ...bos.map((token) => ({ SpecialToken: { id: token, type_id: type } })),
    { Sequence: { id, type_id: type } },
    ...eos.map((token) => ({ SpecialToken: { id: token, type_id: type } })),
  ];
  const used = [
    ...(bos.length > 0 ? [[bos[0]!, special.bos!] as const] : []),
    ...(eos.length > 0 ? [[eos[0]!, special.eos!] as const] : []),
  ];
  return {
    type: 'TemplateProcessing',
    single: sequence('A', 0),
    pair: [...sequence('A', 0), ...sequence('B', 1)],
    special_tokens: Object.fromEntries(used.map(([id, number]) => [id, { id, ids: [number], tokens: [id] }])),
  };
}
