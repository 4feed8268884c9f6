// @ts-check
// A chat with a model as it is, and then by a plan. Only the first line of `generators` differs.
import { withCqil } from '@cqil/plugin-transformers';
import * as transformers from '@huggingface/transformers';

const model = process.argv[2] ?? '.cache/models/smollm2-135m-instruct-q4';
const { pipeline, TextStreamer } = withCqil(transformers);

/** Layers 14 and 15 read the same input, and so do 26 and 27. */
const plan = /** @type {const} */ ({
  version: 1,
  layers: 30,
  groups: [
    { layers: [14, 15], bypass: 1 },
    { layers: [26, 27], bypass: 1 },
  ],
});

const messages = [{ role: 'user', content: 'Why is the sky blue? Answer in one sentence.' }];

for (const cqil of [/** @type {const} */ (false), { plan }]) {
  console.log(cqil === false ? '\nThe model as it is:' : '\nThe model by the plan:');
  const generator = await pipeline('text-generation', model, { cqil });
  const streamer = new TextStreamer(generator.tokenizer, { skip_prompt: true, skip_special_tokens: true });
  await generator(messages, { max_new_tokens: 60, do_sample: false, streamer });
  await generator.dispose();
}
