/** How tokens are written in a tokenizer's file: as bytes in stand-in letters, with bytes as `<0xE4>`, or as they are. */
export type VocabularyKind = 'byte_fallback' | 'byte_level' | 'raw';

/** The parts of `tokenizer.json` that say what each token stands for. */
export interface TokenizerFile {
  readonly model?: unknown;
  readonly added_tokens?: unknown;
  readonly decoder?: unknown;
  readonly pre_tokenizer?: unknown;
}

interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly special?: boolean;
}

/** What each token of a model stands for. */
export class Vocabulary {
  readonly kind: VocabularyKind;
  /** By id; holes are `undefined`. */
  readonly #tokens: (string | undefined)[] = [];
  readonly #added = new Map<number, AddedToken>();

  constructor(file: TokenizerFile) {
    const model = (file.model ?? {}) as { vocab?: unknown; byte_fallback?: unknown };
    const { vocab } = model;
    if (Array.isArray(vocab)) {
      for (const [id, entry] of vocab.entries()) this.#tokens[id] = String((entry as unknown[])[0]);
    } else {
      for (const [token, id] of Object.entries((vocab ?? {}) as Record<string, number>))
        this.#tokens[id] = token;
    }
    for (const added of (file.added_tokens ?? []) as AddedToken[]) {
      this.#added.set(added.id, added);
      this.#tokens[added.id] = added.content;
    }
    const said = JSON.stringify([file.decoder, file.pre_tokenizer]);
    const fallback = model.byte_fallback === true || said.includes('"ByteFallback"');
    this.kind = said.includes('"ByteLevel"') ? 'byte_level' : fallback ? 'byte_fallback' : 'raw';
  }

  get size(): number {
    return this.#tokens.length;
  }

  /** Whether both mean the same by every token. */
  equals(other: Vocabulary): boolean {
    if (this.kind !== other.kind || this.size !== other.size) return false;
    for (let id = 0; id < this.size; id++) if (this.#tokens[id] !== other.#tokens[id]) return false;
    return true;
  }

  /** The bytes that a token stands for; none where there is no such token. */
  bytes(id: number): Uint8Array {
    const token = this.#tokens[id] ?? '';
    if (this.#added.has(id)) return utf8(token);
    if (this.kind === 'byte_level') return Uint8Array.from(token, (letter) => BYTE_OF.get(letter) ?? 0);
    const byte = this.kind === 'byte_fallback' ? /^<0x([0-9A-F]{2})>$/i.exec(token)?.[1] : undefined;
    if (byte !== undefined) return Uint8Array.of(Number.parseInt(byte, 16));
    return utf8(token.replaceAll('▁', ' '));
  }

  /** A token as text; one that is no whole characters as `bytes:\xe4\xb8`, as OpenAI writes it. */
  text(id: number): { readonly token: string; readonly bytes: readonly number[] } {
    const bytes = this.bytes(id);
    let token: string;
    try {
      token = STRICT.decode(bytes);
    } catch {
      token = `bytes:${Array.from(bytes, (byte) => `\\x${byte.toString(16).padStart(2, '0')}`).join('')}`;
    }
    return { token, bytes: Array.from(bytes) };
  }

  /** All tokens as xgrammar wants them: those that are no text are empty. */
  readonly forGrammars = (): string[] =>
    Array.from(this.#tokens, (token, id) => {
      const added = this.#added.get(id);
      if (token === undefined || added?.special === true) return '';
      if (added === undefined || this.kind !== 'byte_level') return token;
      return Array.from(utf8(token), (byte) => LETTER_OF[byte]).join('');
    });
}

const STRICT = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const utf8 = (text: string) => new TextEncoder().encode(text);

/** The printable stand-ins of byte-level BPE, by byte (GPT-2's table). */
const LETTER_OF: readonly string[] = (() => {
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
    return String.fromCodePoint(printable ? byte : next++);
  });
})();
const BYTE_OF: ReadonlyMap<string, number> = new Map(LETTER_OF.map((letter, byte) => [letter, byte]));
