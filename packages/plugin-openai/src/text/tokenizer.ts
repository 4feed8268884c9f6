import { createRequire } from 'node:module';
import { Worker } from 'node:worker_threads';
import { Tokenizer } from '@huggingface/tokenizers';

/** Characters that are read where they are; more could hold up everything else for as long as seconds. */
const SHORT = 1500;

/** What the thread runs: tokens for texts, one after the other. */
const THREAD = `
const { parentPort, workerData } = require('node:worker_threads');
const { Tokenizer } = require(workerData.library);
const tokenizer = new Tokenizer(workerData.file, workerData.config);
parentPort.on('message', ({ id, text, special }) => {
  try {
    parentPort.postMessage({ id, ids: tokenizer.encode(text, { add_special_tokens: special }).ids });
  } catch (cause) {
    parentPort.postMessage({ id, error: cause instanceof Error ? cause.message : String(cause) });
  }
});
`;

interface Waiting {
  readonly text: string;
  readonly special: boolean;
  resolve(ids: readonly number[]): void;
  reject(cause: unknown): void;
}

type Answer =
  | { readonly id: number; readonly ids: readonly number[] }
  | { readonly id: number; readonly error: string };

export interface EncodeOptions {
  /** Adds the tokens that begin and end any text. */
  readonly special: boolean;
  readonly signal?: AbortSignal | undefined;
}

/** A tokenizer that reads long texts on a thread of its own, which starts with the first of them. */
export class ThreadedTokenizer {
  readonly #tokenizer: Tokenizer;
  readonly #data: object;
  readonly #waiting = new Map<number, Waiting>();
  #thread: Worker | undefined;
  #next = 0;

  /** @param file `tokenizer.json`; @param config `tokenizer_config.json` */
  constructor(file: object, config: object) {
    this.#tokenizer = new Tokenizer(file, config);
    const library = createRequire(import.meta.url).resolve('@huggingface/tokenizers');
    this.#data = { library, file, config };
  }

  /** @throws the signal's reason; Error what the tokenizer has against the text */
  encode(text: string, { special, signal }: EncodeOptions): readonly number[] | Promise<readonly number[]> {
    if (text.length <= SHORT) return this.#tokenizer.encode(text, { add_special_tokens: special }).ids;
    return this.#onThread(text, special, signal);
  }

  decode(ids: readonly number[], special: boolean): string {
    if (ids.length === 0) return '';
    return this.#tokenizer.decode([...ids], {
      skip_special_tokens: !special,
      clean_up_tokenization_spaces: false,
    });
  }

  async dispose(): Promise<void> {
    await this.#thread?.terminate();
    this.#thread = undefined;
    this.#fail(new Error('The model has been disposed of.'));
  }

  async #onThread(
    text: string,
    special: boolean,
    signal: AbortSignal | undefined,
  ): Promise<readonly number[]> {
    signal?.throwIfAborted();
    const id = this.#next++;
    let leave = () => {};
    try {
      return await new Promise<readonly number[]>((resolve, reject) => {
        this.#waiting.set(id, { text, special, resolve, reject });
        leave = () => {
          reject(signal?.reason);
          this.#waiting.delete(id);
          // It may be this text that the thread is at: the others begin anew.
          this.#restart();
        };
        signal?.addEventListener('abort', leave, { once: true });
        (this.#thread ?? this.#start()).postMessage({ id, text, special });
      });
    } finally {
      signal?.removeEventListener('abort', leave);
    }
  }

  #start(): Worker {
    const thread = new Worker(THREAD, { eval: true, workerData: this.#data });
    // A process that is about to end does not wait for it.
    thread.unref();
    thread.on('message', (answer: Answer) => {
      const waiting = this.#waiting.get(answer.id);
      this.#waiting.delete(answer.id);
      if ('error' in answer) waiting?.reject(new Error(answer.error));
      else waiting?.resolve(answer.ids);
    });
    thread.on('error', (cause) => {
      if (this.#thread !== thread) return;
      this.#thread = undefined;
      this.#fail(cause);
    });
    this.#thread = thread;
    return thread;
  }

  #restart(): void {
    const old = this.#thread;
    this.#thread = undefined;
    void old?.terminate();
    if (this.#waiting.size === 0) return;
    const thread = this.#start();
    for (const [id, { text, special }] of this.#waiting) thread.postMessage({ id, text, special });
  }

  #fail(cause: unknown): void {
    for (const { reject } of this.#waiting.values()) reject(cause);
    this.#waiting.clear();
  }
}
