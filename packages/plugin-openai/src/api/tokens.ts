import { z } from 'zod';
import { badRequest, unsupported } from '../http/error.js';
import type { TextModel } from '../model.js';
import { chatParameters } from './chat-parameters.js';
import { checkIds, encoded } from './job.js';
import { cap, type Limits } from './limits.js';
import { parse } from './parse.js';

const tokenizeSchema = z.object({
  model: z.string(),
  prompt: z.string().optional(),
  messages: z.unknown().optional(),
  add_special_tokens: z.boolean().optional(),
});

export interface TokenizeParameters {
  readonly model: string;
  readonly encode: (model: TextModel, signal: AbortSignal) => Promise<readonly number[]>;
}

/** `POST /tokenize`: a text (`prompt`) or a chat (`messages`). */
export function tokenizeParameters(body: unknown, limits: Limits): TokenizeParameters {
  const { model, prompt, messages, add_special_tokens: special = true } = parse(tokenizeSchema, body);
  if ((prompt === undefined) === (messages === undefined)) {
    throw badRequest('Give prompt or messages.', prompt === undefined ? 'prompt' : 'messages');
  }
  if (prompt !== undefined) {
    return {
      model,
      encode: (one, signal) => encoded('prompt', signal, () => one.encode(prompt, { special, signal })),
    };
  }
  const chat = chatParameters({ model, messages }, limits).messages;
  return {
    model,
    encode: (one, signal) => encoded('messages', signal, () => one.encodeChat(chat, { signal })),
  };
}

const detokenizeSchema = z.object({
  model: z.string(),
  tokens: z.array(z.number().int().min(0)),
  skip_special_tokens: z.boolean().optional(),
});

export interface DetokenizeParameters {
  readonly model: string;
  readonly decode: (model: TextModel) => string;
}

/** `POST /detokenize` */
export function detokenizeParameters(body: unknown): DetokenizeParameters {
  const { model, tokens, skip_special_tokens: skip = false } = parse(detokenizeSchema, body);
  return {
    model,
    decode(one) {
      if (one.decode === undefined) throw unsupported('tokens', 'this model does not turn tokens into text');
      checkIds(one, tokens, 'tokens');
      // What no text of the model's has need not be turned into one.
      cap(tokens.length, one.contextLength, 'tokens', 'tokens');
      return one.decode(tokens, { special: !skip });
    },
  };
}
