import { dirname, resolve } from 'node:path';
import { createInterface } from 'node:readline/promises';
import { UsageError } from '@cqil/core';
import type { ModelSource } from '@cqil/planner';
import type { TextGenerationPipeline } from '@huggingface/transformers';
import { speakInParts } from '../chat/parts-speaker.js';
import type { Message, Speaker, SpeakerOptions } from '../chat/speaker.js';
import { type CommandContext, type CommandResult, defineCommand } from '../command.js';
import { oneText, wholeNumber, withDtype, withModel } from '../options.js';

export const chat = defineCommand({
  command: 'chat <model>',
  describe:
    'talk to a model through Transformers.js (in parts: through our runtime); interactive without --prompt',
  examples: [['cqil chat models/smollm2-cqil --prompt "What is a residual stream?"', 'one answer']],
  options: (yargs) =>
    withDtype(withModel(yargs))
      .option('prompt', { type: 'string', describe: 'what to say', coerce: oneText('prompt') })
      .option('max-tokens', {
        type: 'string',
        describe: 'longest answer, in tokens (default 256)',
        coerce: wholeNumber('max-tokens', 1),
      })
      .option('seed', {
        type: 'string',
        describe:
          "draw tokens by the model's own generation settings, from this seed; without it: the likeliest token",
        coerce: wholeNumber('seed'),
      }),
  async run({ model, dtype, prompt, maxTokens = 256, seed }, context) {
    if (prompt === undefined && context.json) {
      throw new UsageError('CHAT_NEEDS_PROMPT', 'A conversation is no JSON document.', {
        expected: '--prompt with --json',
        hint: 'give --prompt, or leave --json out',
      });
    }
    await using speaker = await openSpeaker(model, dtype, { maxTokens, seed }, context);
    return prompt === undefined
      ? await converse(speaker, context)
      : await answerOnce(speaker, prompt, context);
  },
});

async function openSpeaker(
  model: string,
  dtype: string | undefined,
  options: SpeakerOptions,
  context: CommandContext,
): Promise<Speaker> {
  const { isPartition } = await import('@cqil/runtime-gpu');
  if (await isPartition(model)) return speakInParts(resolve(model), options, context);
  const { locateModel } = await import('@cqil/planner');
  const generator = await loadPipeline(await locateModel(model, { dtype }), context);
  return makeSpeaker(generator, options, context);
}

async function answerOnce(
  speaker: Speaker,
  prompt: string,
  { json, stdout }: CommandContext,
): Promise<CommandResult> {
  const answer = await speaker.answer([{ role: 'user', content: prompt }]);
  if (!json) stdout.write('\n');
  const perToken = answer.tokens > 0 ? answer.milliseconds / answer.tokens : 0;
  return {
    document: { prompt, ...answer },
    text: `${answer.tokens} tokens, ${perToken.toFixed(1)} ms each`,
  };
}

async function converse(
  speaker: Speaker,
  { signal, stdout, stderr }: CommandContext,
): Promise<CommandResult> {
  const lines = createInterface({
    input: process.stdin,
    output: process.stderr,
    terminal: process.stdin.isTTY === true,
  });
  // In a terminal readline takes Ctrl-C for itself.
  lines.on('SIGINT', () => process.emit('SIGINT'));
  const messages: Message[] = [];
  try {
    stderr.write('Ctrl-D or an empty line ends the conversation.\n');
    lines.setPrompt('> ');
    lines.prompt();
    for await (const line of abortable(lines, signal)) {
      if (line.trim() === '') break;
      messages.push({ role: 'user', content: line });
      const { text } = await speaker.answer(messages);
      messages.push({ role: 'assistant', content: text });
      stdout.write('\n');
      lines.prompt();
    }
  } finally {
    lines.close();
  }
  return { document: { messages } };
}

/** The lines of `source` until `signal` fires. */
async function* abortable(source: AsyncIterable<string>, signal: AbortSignal): AsyncGenerator<string> {
  const iterator = source[Symbol.asyncIterator]();
  const aborted = new Promise<never>((_, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
  for (;;) {
    const next = await Promise.race([iterator.next(), aborted]);
    if (next.done === true) return;
    yield next.value;
  }
}

function makeSpeaker(
  generator: TextGenerationPipeline,
  { maxTokens, seed }: SpeakerOptions,
  { json, stdout, signal }: CommandContext,
): Speaker {
  const answer = async (messages: readonly Message[]) => {
    const { InterruptableStoppingCriteria, random, TextStreamer } = await import('@huggingface/transformers');
    const stop = new InterruptableStoppingCriteria();
    const onAbort = (): void => stop.interrupt();
    signal.addEventListener('abort', onAbort, { once: true });
    let text = '';
    let tokens = 0;
    const streamer = new TextStreamer(generator.tokenizer, {
      skip_prompt: true,
      skip_special_tokens: true,
      callback_function: (piece: string) => {
        text += piece;
        if (!json) stdout.write(piece);
      },
      token_callback_function: (ids: bigint[]) => {
        tokens += ids.length;
      },
    });
    if (seed !== undefined) random.seed(seed);
    const began = performance.now();
    try {
      await generator(promptFor(generator, messages), {
        max_new_tokens: maxTokens,
        do_sample: seed !== undefined,
        streamer,
        stopping_criteria: stop,
      });
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
    signal.throwIfAborted();
    return { text, tokens, milliseconds: performance.now() - began };
  };
  return { answer, [Symbol.asyncDispose]: () => generator.dispose() };
}

/** A model without a chat template goes on with what it is given. */
function promptFor({ tokenizer }: TextGenerationPipeline, messages: readonly Message[]): Message[] | string {
  const template = (tokenizer as { chat_template?: unknown }).chat_template;
  return template ? [...messages] : messages.map(({ content }) => content).join('\n');
}

async function loadPipeline(
  source: ModelSource,
  { signal, onProgress }: CommandContext,
): Promise<TextGenerationPipeline> {
  if (
    source.layout !== 'transformers' ||
    source.dtype === 'as-is' ||
    !source.sideFiles.includes('tokenizer.json')
  ) {
    throw new UsageError(
      'CHAT_NOT_LOADABLE',
      `Transformers.js cannot load ${source.onnxFile} to talk to it.`,
      {
        expected: 'a folder with config.json, tokenizer.json and onnx/model*.onnx',
        found: `${source.layout} layout with ${source.sideFiles.join(', ') || 'no configs'}`,
        hint: 'give the folder of a model that was fetched for Transformers.js or made by cqil import',
      },
    );
  }
  const [transformers, { withCqil }] = await Promise.all([
    import('@huggingface/transformers'),
    import('@cqil/plugin-transformers'),
  ]);
  const { pipeline } = withCqil(transformers, { onProgress, signal });
  const folder = dirname(source.onnxRelative);
  onProgress({ phase: 'loading the model', done: 0, total: 1 });
  const generator = await pipeline('text-generation', source.root, {
    dtype: source.dtype,
    device: 'cpu',
    local_files_only: true,
    subfolder: folder === '.' ? '' : folder,
  });
  onProgress({ phase: 'loading the model', done: 1, total: 1 });
  return generator;
}
