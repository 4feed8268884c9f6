import { Template } from '@huggingface/jinja';
import { z } from 'zod';
import type { ChatMessage, ChatOptions, ToolFormat } from '../model.js';

/** One template, or several with names. */
export const templateSchema = z.union([
  z.string(),
  z.array(z.looseObject({ name: z.string(), template: z.string() })),
]);

interface Specials {
  readonly bos_token: string;
  readonly eos_token: string;
}

/** A model's chat template: writes messages, and the tools that may be called, as the text that it was trained on. */
export class ChatTemplate {
  /** Absent where the template writes no tools, or it is not known how the model would call them. */
  readonly toolFormat: ToolFormat | undefined;
  readonly #plain: Template;
  readonly #withTools: Template;
  readonly #specials: Specials;

  private constructor(plain: string, withTools: string, specials: Specials) {
    this.#plain = new Template(plain);
    this.#withTools = new Template(withTools);
    this.#specials = specials;
    this.toolFormat = toolFormatOf(withTools);
  }

  static of(given: z.infer<typeof templateSchema> | undefined, specials: Specials): ChatTemplate | undefined {
    if (given === undefined) return undefined;
    if (typeof given === 'string') return new ChatTemplate(given, given, specials);
    const named = (name: string) => given.find((one) => one.name === name)?.template;
    const plain = named('default') ?? given[0]?.template;
    return plain === undefined ? undefined : new ChatTemplate(plain, named('tool_use') ?? plain, specials);
  }

  /** @throws Error what the template itself says against the messages */
  render(messages: readonly ChatMessage[], { tools, answerStart = '' }: ChatOptions = {}): string {
    const template = tools === undefined ? this.#plain : this.#withTools;
    const text = template.render({
      messages,
      add_generation_prompt: true,
      ...this.#specials,
      ...(tools === undefined ? {} : { tools }),
    });
    return text + answerStart;
  }
}

/** A template shows how calls look by writing those that have been made. */
export function toolFormatOf(template: string): ToolFormat | undefined {
  if (!/\btools\b/.test(template)) return undefined;
  if (template.includes('<tool_call>')) return 'hermes';
  if (template.includes('[TOOL_CALLS]')) return 'mistral';
  return template.includes('"parameters": ') ? 'llama' : undefined;
}
