import { describe, expect, it } from 'vitest';
import { clientOf } from '../test/client.js';
import { collect } from '../test/collect.js';
import { scriptedModel } from '../test/scripted.js';

const tool = {
  type: 'function' as const,
  name: 'weather',
  parameters: { type: 'object', properties: {} },
  strict: false,
};

describe('a response', () => {
  it('has the form of OpenAI, and nothing of it is kept', async () => {
    const client = clientOf({ models: [scriptedModel(['Hel', 'lo'])] });
    const response = await client.responses.create({
      model: 'scripted',
      input: 'Hi',
      instructions: 'Be brief.',
      metadata: { who: 'me' },
    });
    expect(response.output_text).toBe('Hello');
    expect(response).toMatchObject({
      id: expect.stringMatching(/^resp_/),
      object: 'response',
      status: 'completed',
      error: null,
      incomplete_details: null,
      instructions: 'Be brief.',
      metadata: { who: 'me' },
      output: [
        {
          type: 'message',
          role: 'assistant',
          status: 'completed',
          content: [{ type: 'output_text', text: 'Hello', annotations: [] }],
        },
      ],
      store: false,
      usage: { input_tokens: 'system:Be brief.;user:Hi;'.length, output_tokens: 3 },
    });
    const kept = client.responses.create({
      model: 'scripted',
      input: 'Hi',
      previous_response_id: response.id,
    });
    await expect(kept).rejects.toMatchObject({ status: 400, param: 'previous_response_id' });
  });

  it('streams as events that add up to the whole', async () => {
    const model = scriptedModel(['Hel', 'lo'], { toolFormat: 'hermes' });
    const client = clientOf({ models: [model] });
    const events = await collect(
      await client.responses.create({ model: 'scripted', input: 'Hi', stream: true }),
    );
    expect(events.map(({ type }) => type)).toEqual([
      'response.created',
      'response.in_progress',
      'response.output_item.added',
      'response.content_part.added',
      'response.output_text.delta',
      'response.output_text.delta',
      'response.output_text.done',
      'response.content_part.done',
      'response.output_item.done',
      'response.completed',
    ]);
    expect(events.map((event) => event.sequence_number)).toEqual(events.map((_, i) => i));
    // The client's own helper puts the deltas together, and compares.
    const final = await client.responses.stream({ model: 'scripted', input: 'Hi' }).finalResponse();
    expect(final.output_text).toBe('Hello');
  });

  it('may end before its time', async () => {
    const client = clientOf({ models: [scriptedModel(['Hel', 'lo', '!'])] });
    const response = await client.responses.create({ model: 'scripted', input: 'Hi', max_output_tokens: 2 });
    expect(response).toMatchObject({
      status: 'incomplete',
      incomplete_details: { reason: 'max_output_tokens' },
      output: [{ status: 'incomplete', content: [{ text: 'Hello' }] }],
    });
  });

  it('holds calls of tools, whole and streamed', async () => {
    const script = [
      'I look. ',
      '<tool_call>{"name": "weather", ',
      '"arguments": {"city"',
      ': "Rome"}}',
      '</tool_call>',
    ];
    const model = scriptedModel(script, { toolFormat: 'hermes', contextLength: 1000 });
    const client = clientOf({ models: [model] });
    const request = { model: 'scripted', input: 'Hi', tools: [tool] };
    const { output } = await client.responses.create(request);
    expect(output).toMatchObject([
      { type: 'message', content: [{ text: 'I look. ' }] },
      {
        type: 'function_call',
        name: 'weather',
        arguments: '{"city": "Rome"}',
        call_id: expect.stringMatching(/^call_/),
        status: 'completed',
      },
    ]);
    const events = await collect(await client.responses.create({ ...request, stream: true }));
    const deltas = events.flatMap((event) =>
      event.type === 'response.function_call_arguments.delta' ? [event.delta] : [],
    );
    expect(deltas).toEqual(['{"city"', ': "Rome"}']);
    const last = events.at(-1);
    expect(last).toMatchObject({
      type: 'response.completed',
      response: { output: [{ type: 'message' }, { type: 'function_call', arguments: '{"city": "Rome"}' }] },
    });
  });

  it('tells log probabilities when they are included', async () => {
    const client = clientOf({ models: [scriptedModel(['a', 'b'])] });
    const request = { model: 'scripted', input: 'Hi', top_logprobs: 1 };
    const whole = await client.responses.create({ ...request, include: ['message.output_text.logprobs'] });
    expect(whole.output[0]).toMatchObject({
      content: [
        {
          logprobs: [
            { token: 'a', logprob: -1 },
            { token: 'b', logprob: -2 },
          ],
        },
      ],
    });
  });

  it('says in its last event what went wrong', async () => {
    const client = clientOf({ models: [scriptedModel(['a', new Error('secret')])] });
    const events = await collect(
      await client.responses.create({ model: 'scripted', input: 'Hi', stream: true }),
    );
    expect(events.at(-1)).toMatchObject({
      type: 'response.failed',
      response: {
        status: 'failed',
        error: { code: 'internal_error', message: 'The model failed on this request.' },
      },
    });
  });
});
