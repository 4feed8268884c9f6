import { type ChatParameters, chatParameters } from './chat-parameters.js';
import { ChatWriter } from './chat-writer.js';
import { checkSchema, choicesFor, type Endpoint, encoded, planTools } from './job.js';

/** `POST /v1/chat/completions` */
export const chatEndpoint: Endpoint<ChatParameters> = {
  idPrefix: 'chatcmpl-',
  parameters: chatParameters,
  prompt: ({ messages }) => messages,
  async job(model, parameters, frame, signal) {
    const { messages, n, logprobs, includeUsage, timingsPerToken, stop } = parameters;
    if (parameters.schema !== undefined) await checkSchema(model, parameters.schema, 'response_format');
    const { chat, answerStart, schema = parameters.schema, parse } = await planTools(model, parameters);
    const promptIds = await encoded('messages', signal, () =>
      model.encodeChat(messages, { ...chat, signal }),
    );
    return {
      writer: new ChatWriter(frame, {
        n,
        includeUsage,
        timingsPerToken,
        logprobs: logprobs !== undefined,
        answerStart,
        ...parse,
      }),
      choices: choicesFor(model, promptIds, parameters, { n, logprobs, schema, param: 'messages' }),
      stop,
      promptTokens: promptIds.length,
    };
  },
};
