import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { EnvironmentError, ModelFormatError } from '@cqil/core';
import { Tokenizer as HubTokenizer } from '@huggingface/tokenizers';
import { z } from 'zod';

/** Text to token ids and back, as Transformers.js does it for the same folder. */
export interface Tokenizer {
  /**
   * @param options.addSpecialTokens begin with the tokens that the model's post-processor adds (BOS in many
   *   models); `true` when absent, as in Transformers.js
   */
  encode(text: string, options?: { readonly addSpecialTokens?: boolean }): number[];
  decode(ids: readonly number[], options?: { readonly skipSpecialTokens?: boolean }): string;
  /** Begin and end of text, where `tokenizer_config.json` names them. */
  readonly bosId: number | undefined;
  readonly eosId: number | undefined;
  /** Number of ids, added tokens included. */
  readonly size: number;
}

const token = z.union([
  z.string(),
  z.looseObject({ content: z.string() }).transform((added) => added.content),
]);
const configSchema = z.looseObject({ bos_token: token.nullish(), eos_token: token.nullish() });
const tokenizerSchema = z.looseObject({ model: z.looseObject({}) });

/**
 * Loads `tokenizer.json` and `tokenizer_config.json` of a model folder with the library that Transformers.js
 * itself uses.
 *
 * @throws EnvironmentError `TOKENIZER_NOT_FOUND`; ModelFormatError `TOKENIZER_INVALID`
 */
export async function loadTokenizer(folder: string): Promise<Tokenizer> {
  const definition = await readJson(path.join(folder, 'tokenizer.json'), tokenizerSchema, true);
  const config = await readJson(path.join(folder, 'tokenizer_config.json'), configSchema, false);
  let tokenizer: HubTokenizer;
  try {
    tokenizer = new HubTokenizer(definition, config);
  } catch (cause) {
    throw invalid(
      path.join(folder, 'tokenizer.json'),
      cause instanceof Error ? cause.message : String(cause),
      cause,
    );
  }
  const idOf = (text: string | null | undefined) =>
    text === undefined || text === null ? undefined : tokenizer.token_to_id(text);
  return {
    encode: (text, options) =>
      text === '' && options?.addSpecialTokens === false
        ? []
        : tokenizer.encode(text, { add_special_tokens: options?.addSpecialTokens ?? true }).ids,
    decode: (ids, options) =>
      ids.length === 0
        ? ''
        : tokenizer.decode([...ids], { skip_special_tokens: options?.skipSpecialTokens ?? false }),
    bosId: idOf(config.bos_token),
    eosId: idOf(config.eos_token),
    size: tokenizer.get_vocab(true).size,
  };
}

/**
 * The first `count` ids of a text, or all there are, without tokenising the rest of a long text.
 *
 * The last few ids can differ from those of the whole text where the cut falls into a run of white space.
 */
export function encodeStart(tokenizer: Tokenizer, text: string, count: number): number[] {
  for (let length = Math.max(1024, count * 6); ; length *= 2) {
    if (length >= text.length) return tokenizer.encode(text).slice(0, count);
    const end = text.lastIndexOf(' ', length);
    const ids = tokenizer.encode(text.slice(0, end > 0 ? end : length));
    // A token at the cut may be a part of a longer one, so a few more than wanted must be there.
    if (ids.length >= count + 8) return ids.slice(0, count);
  }
}

async function readJson<T>(file: string, schema: z.ZodType<T>, required: boolean): Promise<T> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (cause) {
    if (!required && (cause as NodeJS.ErrnoException).code === 'ENOENT') return schema.parse({});
    throw new EnvironmentError('TOKENIZER_NOT_FOUND', `Could not read ${file}.`, {
      expected: 'a tokenizer beside the model',
      found: (cause as Error).message,
      hint: 'Give the folder that holds tokenizer.json; `cqil import` and `cqil fetch` bring it along.',
      cause,
    });
  }
  try {
    return schema.parse(JSON.parse(text));
  } catch (cause) {
    const found = cause instanceof z.ZodError ? z.prettifyError(cause) : (cause as Error).message;
    throw invalid(file, found, cause);
  }
}

function invalid(file: string, found: string, cause: unknown): ModelFormatError {
  return new ModelFormatError('TOKENIZER_INVALID', `${file} is no tokenizer that can be used.`, {
    expected: 'the JSON of a Hugging Face tokenizer',
    found,
    hint: 'Fetch or import the model again.',
    cause,
  });
}
