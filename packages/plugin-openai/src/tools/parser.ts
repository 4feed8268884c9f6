import type { ToolFormat } from '../model.js';
import { CallReader } from './call-reader.js';

export type ToolEvent =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'call'; readonly index: number; readonly name: string }
  | { readonly kind: 'arguments'; readonly index: number; readonly text: string };

/** Takes a model's text apart, as it comes, into what it says and the tools that it calls. */
export interface ToolParser {
  push(text: string): ToolEvent[];
  /** What was held back, once the text is over. */
  end(): ToolEvent[];
}

/** @param names the tools there are; a Llama's object that names none of them is text */
export function toolParser(format: ToolFormat, names: readonly string[]): ToolParser {
  if (format === 'hermes') return new TaggedCalls();
  return new LeadingCalls(names, format === 'mistral' ? '[TOOL_CALLS]' : '<|python_tag|>');
}

/** What the answer begins with when a tool must be called; an object of name and arguments follows. */
export const CALL_START: Readonly<Record<ToolFormat, string>> = {
  hermes: '<tool_call>\n',
  llama: '',
  mistral: '[TOOL_CALLS] [',
};

/** What a format calls the arguments. */
export const ARGUMENTS_KEY: Readonly<Record<ToolFormat, string>> = {
  hermes: 'arguments',
  llama: 'parameters',
  mistral: 'arguments',
};

const KEYS = ['arguments', 'parameters'];
const OPEN = '<tool_call>';
const CLOSE = '</tool_call>';

/** `<tool_call>{…}</tool_call>`, among text. */
class TaggedCalls implements ToolParser {
  #state: 'behind' | 'call' | 'text' = 'text';
  #held = '';
  /** The text of the call under way, until it is one. */
  #raw = '';
  #reader = new CallReader(KEYS);
  #calls = 0;

  push(text: string): ToolEvent[] {
    const events: ToolEvent[] = [];
    let left = this.#held + text;
    this.#held = '';
    for (;;) {
      if (this.#state === 'call') {
        const rest = this.#read(left, events);
        if (rest === undefined) return events;
        left = rest;
      }
      const tag = this.#state === 'text' ? OPEN : CLOSE;
      const at = left.indexOf(tag);
      const plain = at === -1 ? left.slice(0, left.length - overlap(left, tag)) : left.slice(0, at);
      if (this.#state === 'text' && !(this.#calls > 0 && plain.trim() === '')) say(events, plain);
      if (at === -1) {
        this.#held = left.slice(plain.length);
        return events;
      }
      left = left.slice(at + tag.length);
      if (this.#state === 'text') {
        this.#state = 'call';
        this.#raw = OPEN;
        this.#reader = new CallReader(KEYS);
      } else this.#state = 'text';
    }
  }

  end(): ToolEvent[] {
    const events: ToolEvent[] = [];
    if (this.#state === 'text') say(events, this.#held);
    // A call that never got as far as its name.
    if (this.#state === 'call' && this.#reader.name === undefined) say(events, this.#raw);
    return events;
  }

  /** @returns what is left behind the call, or nothing while it goes on */
  #read(text: string, events: ToolEvent[]): string | undefined {
    const known = this.#reader.name !== undefined;
    const read = this.#reader.push(text);
    const index = known ? this.#calls - 1 : this.#calls;
    for (const event of read.events) {
      if (event.kind === 'name') {
        this.#calls++;
        events.push({ kind: 'call', index, name: event.name });
      } else events.push({ kind: 'arguments', index, text: event.text });
    }
    if (this.#reader.state === 'open') {
      this.#raw += text;
      return undefined;
    }
    if (this.#reader.state === 'bad' && this.#reader.name === undefined) {
      // No call after all: what looked like one is what the model says.
      say(events, this.#raw + text.slice(0, text.length - read.rest.length));
      this.#state = 'text';
    } else this.#state = 'behind';
    return read.rest;
  }
}

/** An answer that is one object, or a list of them, from its beginning. */
class LeadingCalls implements ToolParser {
  #state: 'begin' | 'between' | 'call' | 'text' = 'begin';
  #raw = '';
  #reader = new CallReader(KEYS);
  #calls = 0;
  #list = false;
  #told = false;
  readonly #names: readonly string[];
  readonly #prefix: string;

  constructor(names: readonly string[], prefix: string) {
    this.#names = names;
    this.#prefix = prefix;
  }

  push(text: string): ToolEvent[] {
    const events: ToolEvent[] = [];
    if (this.#state === 'text') {
      say(events, text);
      return events;
    }
    let left = text;
    this.#raw += text;
    if (this.#state === 'begin') {
      const begun = this.#raw.trimStart();
      // Perhaps the beginning of the prefix.
      if (this.#prefix.startsWith(begun) && begun !== this.#prefix) return events;
      left = (begun.startsWith(this.#prefix) ? begun.slice(this.#prefix.length) : begun).trimStart();
      if (left === '') return events;
      this.#list = left.startsWith('[');
      if (this.#list) left = left.slice(1);
      else if (!left.startsWith('{')) return this.#asText(events);
      this.#state = 'call';
    }
    while (left !== '') {
      if (this.#state === 'between') {
        const at = left.indexOf('{');
        if (!this.#list || at === -1) return events;
        left = left.slice(at);
        this.#reader = new CallReader(KEYS);
        this.#state = 'call';
        this.#told = false;
      }
      const read = this.#reader.push(left);
      for (const event of read.events) {
        if (event.kind === 'name') {
          if (!this.#names.includes(event.name) && this.#calls === 0) return this.#asText(events);
          this.#told = true;
          events.push({ kind: 'call', index: this.#calls++, name: event.name });
        } else events.push({ kind: 'arguments', index: this.#calls - 1, text: event.text });
      }
      if (this.#reader.state === 'bad' && !this.#told && this.#calls === 0) return this.#asText(events);
      if (this.#reader.state !== 'open') this.#state = 'between';
      left = read.rest;
    }
    return events;
  }

  end(): ToolEvent[] {
    if (this.#state === 'text' || this.#calls > 0) return [];
    return this.#asText([]);
  }

  #asText(events: ToolEvent[]): ToolEvent[] {
    this.#state = 'text';
    say(events, this.#raw);
    this.#raw = '';
    return events;
  }
}

function say(events: ToolEvent[], text: string): void {
  if (text !== '') events.push({ kind: 'text', text });
}

/** The length of the longest beginning of `tag` at the end of `text`. */
function overlap(text: string, tag: string): number {
  for (let length = Math.min(text.length, tag.length - 1); length > 0; length--) {
    if (text.endsWith(tag.slice(0, length))) return length;
  }
  return 0;
}
