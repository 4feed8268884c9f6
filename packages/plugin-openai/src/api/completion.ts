import { badRequest, unsupported } from '../http/error.js';
import type { TextModel } from '../model.js';
import { type CompletionParameters, completionParameters, type Prompt } from './completion-parameters.js';
import { CompletionWriter } from './completion-writer.js';
import { checkIds, choicesFor, type Endpoint, encoded } from './job.js';

/** What the older of the interfaces generates when it is not told how much. */
const COMPLETION_TOKENS = 16;

/** `POST /v1/completions` */
export const completionEndpoint: Endpoint<CompletionParameters> = {
  idPrefix: 'cmpl-',
  parameters: completionParameters,
  prompt: ({ prompts }) => prompts,
  async job(model, parameters, frame, signal) {
    const { prompts, n, logprobs, includeUsage, timingsPerToken, stop, echo, schema } = parameters;
    const encodedPrompts: (readonly number[])[] = [];
    for (const prompt of prompts) encodedPrompts.push(await idsOf(model, prompt, 'prompt', signal));
    const choices = encodedPrompts.map((ids) =>
      choicesFor(model, ids, parameters, {
        n,
        logprobs,
        schema,
        param: 'prompt',
        promptLogprobs: echo && logprobs !== undefined,
        defaultTokens: COMPLETION_TOKENS,
      }),
    );
    const echoes = prompts.map((prompt, i) => (echo ? textOf(model, prompt, encodedPrompts[i] ?? []) : ''));
    return {
      writer: new CompletionWriter(frame, {
        echoes: echoes.flatMap((text) => Array.from({ length: n }, () => text)),
        includeUsage,
        timingsPerToken,
        logprobs: logprobs !== undefined,
      }),
      choices: choices.flat(),
      stop,
      promptTokens: encodedPrompts.reduce((sum, { length }) => sum + length, 0),
    };
  },
};

/** The tokens of a prompt, which may be tokens already. */
export async function idsOf(
  model: TextModel,
  prompt: Prompt,
  param: string,
  signal: AbortSignal,
): Promise<readonly number[]> {
  if (typeof prompt === 'string') {
    if (prompt === '') throw badRequest('The prompt is empty.', param, 'empty_prompt');
    return encoded(param, signal, () => model.encode(prompt, { signal }));
  }
  checkIds(model, prompt, param);
  return prompt;
}

function textOf(model: TextModel, prompt: Prompt, ids: readonly number[]): string {
  if (typeof prompt === 'string') return prompt;
  if (model.decode === undefined) throw unsupported('echo', 'this model does not turn tokens into text');
  return model.decode(ids, { special: true });
}
