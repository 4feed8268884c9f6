// @ts-check
// Serves a model with OpenAI's interface until it is interrupted.
import { createOpenAIHandler, openTextModel, serve } from '@cqil/plugin-openai';

const folder = process.argv[2] ?? '.cache/models/smollm2-135m-instruct-q4';
const model = await openTextModel(folder);
const server = await serve(createOpenAIHandler({ models: [model], onError: console.error }));

console.log(`${model.id} at ${server.url}. For example:

curl -N ${server.url}/v1/chat/completions -H 'content-type: application/json' -d '{
  "model": "${model.id}", "stream": true, "max_tokens": 60,
  "messages": [{"role": "user", "content": "Why is the sky blue?"}]
}'`);

process.once('SIGINT', async () => {
  await server.close();
  await model.dispose();
});
