import type { TextModel, TextRequest, TokenLogprob } from '../model.js';

export interface ScriptedModel extends TextModel {
  /** Every request that came to be generated. */
  readonly requests: TextRequest[];
  /** Tokens handed out so far, over all requests. */
  steps: number;
  /** Generations under way, and the most that ever were at once. */
  running: number;
  peak: number;
}

type Script = readonly (string | Error)[];

interface ScriptOptions extends Partial<Pick<TextModel, 'checkSchema' | 'embed' | 'toolFormat'>> {
  readonly id?: string;
  /** Between tokens, in milliseconds. */
  readonly pause?: number;
  readonly contextLength?: number;
}

/**
 * A model that answers with given tokens, as many characters of a prompt as tokens, and counts what it does. The log
 * probability of a token is that of its place: -1, -2, …
 *
 * @param script the answer, or one for each request; an Error in it is thrown in its place
 */
export function scriptedModel(
  script: Script | ((request: TextRequest) => Script),
  { id = 'scripted', pause = 0, contextLength = 100, ...more }: ScriptOptions = {},
): ScriptedModel {
  const model: ScriptedModel = {
    id,
    created: 1_700_000_000,
    contextLength,
    vocabularySize: 0x110000,
    logprobs: true,
    ...more,
    requests: [],
    steps: 0,
    running: 0,
    peak: 0,
    encodeChat(messages, { tools = [], answerStart = '' } = {}) {
      if (messages[0]?.role === 'assistant') throw new Error('a chat must not begin with the assistant');
      const offered = tools.length === 0 ? '' : `tools:${JSON.stringify(tools)};`;
      const said = messages.map(({ role, content, tool_calls, name }) => {
        const calls = tool_calls === undefined ? '' : JSON.stringify(tool_calls.map((call) => call.function));
        return `${role}${name === undefined ? '' : `(${name})`}:${content}${calls};`;
      });
      return [...`${offered}${said.join('')}${answerStart}`].map(codeOf);
    },
    encode: (text) => [...text].map(codeOf),
    decode: (ids) => String.fromCodePoint(...ids),
    async *generate(request) {
      model.requests.push(request);
      model.running++;
      model.peak = Math.max(model.peak, model.running);
      const tokens = typeof script === 'function' ? script(request) : script;
      try {
        if (request.promptLogprobs === true) {
          const prompt = request.promptIds.map((code, i) =>
            logprobOf(String.fromCodePoint(code), i === 0 ? null : -i),
          );
          yield { text: '', tokens: 0, prompt };
        }
        for (const [i, token] of tokens.entries()) {
          if (i === request.maxTokens) {
            yield { text: '', tokens: 0, finishReason: 'length' };
            return;
          }
          await new Promise((resolve) => setTimeout(resolve, pause));
          request.signal.throwIfAborted();
          if (token instanceof Error) throw token;
          model.steps++;
          const logprob = request.logprobs === undefined ? {} : { logprob: logprobOf(token, -1 - i) };
          yield { text: token, tokens: 1, ...logprob };
        }
        yield { text: '', tokens: 1, finishReason: 'stop' };
      } finally {
        model.running--;
      }
    },
  };
  return model;
}

function logprobOf(token: string, logprob: number | null): TokenLogprob {
  const bytes = [...new TextEncoder().encode(token)];
  const top =
    logprob === null
      ? []
      : [
          { token, bytes, logprob },
          { token: '?', bytes: [63], logprob: logprob - 1 },
        ];
  return { token, bytes, logprob, top };
}

function codeOf(character: string): number {
  return character.codePointAt(0) ?? 0;
}
