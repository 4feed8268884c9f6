export type CallEvent =
  | { readonly kind: 'name'; readonly name: string }
  /** A piece of the arguments' JSON, as the model wrote it. */
  | { readonly kind: 'arguments'; readonly text: string };

type State = 'start' | 'key' | 'key-end' | 'colon' | 'value' | 'in-value' | 'next' | 'done' | 'bad';

const SPACE = /\s/;

/**
 * Reads one object `{"name": "f", "arguments": {…}}` as it comes, character by character, and tells of the arguments
 * while they are being written. Members may come in any order; others are skipped.
 */
export class CallReader {
  #state: State = 'start';
  #key = '';
  /** The key or value under way: its first character, and all of it where it is a string. */
  #first = '';
  #value = '';
  #depth = 0;
  #string = false;
  #escape = false;
  #name: string | undefined;
  /** Arguments that came before the name. */
  #early = '';
  #told = false;
  readonly #keys: readonly string[];

  /** @param argumentKeys what the arguments may be called */
  constructor(argumentKeys: readonly string[]) {
    this.#keys = argumentKeys;
  }

  /** `done`: the object has ended. `bad`: this is no call. */
  get state(): 'bad' | 'done' | 'open' {
    return this.#state === 'done' || this.#state === 'bad' ? this.#state : 'open';
  }

  /** The function's name, once it is known. */
  get name(): string | undefined {
    return this.#name;
  }

  /**
   * @returns what the text told, and what is left of it behind the object's end
   */
  push(text: string): { readonly events: CallEvent[]; readonly rest: string } {
    const events: CallEvent[] = [];
    let at = 0;
    while (at < text.length && this.state === 'open') {
      // A number or word ends at a character that is not its own.
      if (this.#step(text[at] as string)) at++;
      if (this.#pending !== '') {
        const pending = this.#pending;
        this.#pending = '';
        if (this.#told) append(events, pending);
        else this.#early += pending;
      }
      if (!this.#told && this.#name !== undefined) {
        this.#told = true;
        events.push({ kind: 'name', name: this.#name });
        if (this.#early !== '') append(events, this.#early);
        this.#early = '';
      }
    }
    if (this.#state === 'done' && this.#name === undefined) this.#state = 'bad';
    return { events, rest: text.slice(at) };
  }

  #pending = '';

  /** Takes one character; false where it is to be looked at again. */
  #step(c: string): boolean {
    switch (this.#state) {
      case 'start':
        return this.#expect(c, '{', 'key');
      case 'key':
        if (SPACE.test(c)) return true;
        if (c === '}') this.#state = 'done';
        else if (c === '"') this.#begin('key-end', c);
        else this.#state = 'bad';
        return true;
      case 'key-end':
        this.#take(c);
        if (!this.#string) {
          this.#key = stringOf(this.#value) ?? '';
          this.#state = 'colon';
        }
        return true;
      case 'colon':
        return this.#expect(c, ':', 'value');
      case 'value':
        if (SPACE.test(c)) return true;
        if (c === ',' || c === '}' || c === ']') this.#state = 'bad';
        else {
          this.#begin('in-value', c);
          this.#tell(c);
        }
        return true;
      case 'in-value':
        return this.#inValue(c);
      case 'next':
        if (SPACE.test(c)) return true;
        if (c === ',') this.#state = 'key';
        else this.#state = c === '}' ? 'done' : 'bad';
        return true;
      default:
        return true;
    }
  }

  #inValue(c: string): boolean {
    const scalar = this.#first !== '{' && this.#first !== '[' && this.#first !== '"';
    if (scalar && (c === ',' || c === '}' || SPACE.test(c))) {
      this.#endValue();
      return false;
    }
    this.#take(c);
    this.#tell(c);
    if (!scalar && this.#depth === 0 && !this.#string) this.#endValue();
    return true;
  }

  #endValue(): void {
    this.#state = 'next';
    if (this.#key === 'name') {
      const name = stringOf(this.#value);
      if (name === undefined) this.#state = 'bad';
      else this.#name = name;
    } else if (this.#isArguments() && this.#first === '"') {
      // Some models write the arguments as JSON in a string.
      this.#pending += stringOf(this.#value) ?? '';
    }
  }

  #isArguments(): boolean {
    return this.#keys.includes(this.#key);
  }

  #tell(c: string): void {
    if (this.#isArguments() && this.#first !== '"') this.#pending += c;
  }

  #begin(state: State, c: string): void {
    this.#state = state;
    this.#first = c;
    this.#value = '';
    this.#depth = 0;
    this.#string = false;
    this.#take(c);
  }

  /** Adds a character to the value, and keeps count of what is open. */
  #take(c: string): void {
    if (this.#first === '"') this.#value += c;
    if (this.#string) {
      if (this.#escape) this.#escape = false;
      else if (c === '\\') this.#escape = true;
      else if (c === '"') this.#string = false;
    } else if (c === '"') this.#string = true;
    else if (c === '{' || c === '[') this.#depth++;
    else if (c === '}' || c === ']') this.#depth--;
  }

  #expect(c: string, wanted: string, then: State): boolean {
    if (!SPACE.test(c)) this.#state = c === wanted ? then : 'bad';
    return true;
  }
}

function append(events: CallEvent[], text: string): void {
  const last = events.at(-1);
  if (last?.kind === 'arguments') events[events.length - 1] = { kind: 'arguments', text: last.text + text };
  else events.push({ kind: 'arguments', text });
}

function stringOf(json: string): string | undefined {
  try {
    const value: unknown = JSON.parse(json);
    return typeof value === 'string' ? value : undefined;
  } catch {
    return undefined;
  }
}
