import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { CommandContext } from '../command.js';
import type { Answer, Message, Speaker, SpeakerOptions } from './speaker.js';

/** How tokens are drawn, in the words of the runtime. */
interface Drawing {
  readonly temperature: number;
  readonly topP: number;
  readonly topK?: number;
}

/** What Transformers takes where a model's settings say nothing. */
const USUAL_TOP_K = 50;

/**
 * A model in parts, which Transformers.js has no notion of: through the runtime itself, with the same tokenizer,
 * template and settings.
 *
 * @throws what `openTextModel` throws
 */
export async function speakInParts(
  folder: string,
  { maxTokens, seed }: SpeakerOptions,
  { json, signal, stdout, onProgress }: CommandContext,
): Promise<Speaker> {
  const { openTextModel } = await import('@cqil/plugin-openai');
  onProgress({ phase: 'loading the model', done: 0, total: 1 });
  const model = await openTextModel(folder, { parallel: 1 });
  onProgress({ phase: 'loading the model', done: 1, total: 1 });
  const templated = await hasTemplate(folder);
  const drawing: Drawing =
    seed === undefined
      ? { temperature: 0, topP: 1 }
      : drawingOf(await settingsIn(folder, 'generation_config.json'));
  const answer = async (messages: readonly Message[]): Promise<Answer> => {
    const promptIds = templated
      ? await model.encodeChat(messages, { signal })
      : await model.encode(messages.map(({ content }) => content).join('\n'), { signal });
    let text = '';
    let tokens = 0;
    const began = performance.now();
    for await (const piece of model.generate({ promptIds, maxTokens, ...drawing, seed: seed ?? 0, signal })) {
      text += piece.text;
      tokens += piece.tokens;
      if (!json) stdout.write(piece.text);
    }
    signal.throwIfAborted();
    return { text, tokens, milliseconds: performance.now() - began };
  };
  return { answer, [Symbol.asyncDispose]: () => model.dispose() };
}

/** A model without a chat template goes on with what it is given. */
async function hasTemplate(folder: string): Promise<boolean> {
  const config = await settingsIn(folder, 'tokenizer_config.json');
  if (config.chat_template) return true;
  return (await readFile(join(folder, 'chat_template.jinja'), 'utf8').catch(() => '')) !== '';
}

function drawingOf(settings: Readonly<Record<string, unknown>>): Drawing {
  const number = (name: string, otherwise: number) => {
    const value = settings[name];
    return typeof value === 'number' ? value : otherwise;
  };
  const topK = number('top_k', USUAL_TOP_K);
  return {
    temperature: number('temperature', 1),
    topP: number('top_p', 1),
    ...(topK > 0 ? { topK } : {}),
  };
}

/** Settings that are not there say nothing; that they can be read is checked where the model is opened. */
async function settingsIn(folder: string, name: string): Promise<Readonly<Record<string, unknown>>> {
  const text = await readFile(join(folder, name), 'utf8').catch(() => '{}');
  return JSON.parse(text) as Record<string, unknown>;
}
