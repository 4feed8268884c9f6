import { checkSchema, choicesFor, type Endpoint, encoded, planTools } from './job.js';
import { type ResponseParameters, responseParameters } from './response-parameters.js';
import { ResponseWriter } from './response-writer.js';

/** `POST /v1/responses`, without anything being kept: no `previous_response_id`, and `store` is `false`. */
export const responseEndpoint: Endpoint<ResponseParameters> = {
  idPrefix: 'resp_',
  parameters: responseParameters,
  prompt: ({ messages }) => messages,
  async job(model, parameters, frame, signal) {
    const { messages, logprobs, said, stop } = parameters;
    if (parameters.schema !== undefined) await checkSchema(model, parameters.schema, 'text.format');
    const { chat, answerStart, schema = parameters.schema, parse } = await planTools(model, parameters);
    const promptIds = await encoded('input', signal, () => model.encodeChat(messages, { ...chat, signal }));
    return {
      writer: new ResponseWriter(frame, { said, logprobs: logprobs !== undefined, answerStart, ...parse }),
      choices: choicesFor(model, promptIds, parameters, { n: 1, logprobs, schema, param: 'input' }),
      stop,
      promptTokens: promptIds.length,
    };
  },
};
