import type { TextModel, TextRequest } from '../model.js';

export interface ScriptedModel extends TextModel {
  /** Every request that came to be generated. */
  readonly requests: TextRequest[];
  /** Tokens handed out so far, over all requests. */
  steps: number;
  /** Generations under way, and the most that ever were at once. */
  running: number;
  peak: number;
}

/**
 * A model that answers with given tokens, as many characters of a prompt as tokens, and counts what it does.
 *
 * @param tokens the answer; an Error in it is thrown in its place
 * @param pause between tokens, in milliseconds
 */
export function scriptedModel(
  tokens: readonly (string | Error)[],
  { id = 'scripted', pause = 0, contextLength = 100 } = {},
): ScriptedModel {
  const model: ScriptedModel = {
    id,
    created: 1_700_000_000,
    contextLength,
    requests: [],
    steps: 0,
    running: 0,
    peak: 0,
    encodeChat(messages) {
      if (messages[0]?.role === 'assistant') throw new Error('a chat must not begin with the assistant');
      return [...messages.map(({ role, content }) => `${role}:${content};`).join('')].map(codeOf);
    },
    encode: (text) => [...text].map(codeOf),
    async *generate(request) {
      model.requests.push(request);
      model.running++;
      model.peak = Math.max(model.peak, model.running);
      try {
        for (const [i, token] of tokens.entries()) {
          if (i === request.maxTokens) {
            yield { text: '', tokens: 0, finishReason: 'length' };
            return;
          }
          await new Promise((resolve) => setTimeout(resolve, pause));
          request.signal.throwIfAborted();
          if (token instanceof Error) throw token;
          model.steps++;
          yield { text: token, tokens: 1 };
        }
        yield { text: '', tokens: 1, finishReason: 'stop' };
      } finally {
        model.running--;
      }
    },
  };
  return model;
}

function codeOf(character: string): number {
  return character.codePointAt(0) ?? 0;
}
