import { ApiError, unavailable } from '../http/error.js';
import type { ModelLostError, TextModel } from '../model.js';
import { type MemoryBudget, type Resident, TooLargeError } from './memory.js';
import { TurnQueue } from './queue.js';

/** A model that is opened when it is first asked for. */
export interface ModelSource {
  /** The name by which requests ask for it. */
  readonly id: string;
  /** When the model was made, in seconds since 1970. */
  readonly created: number;
  /** Opens it as soon as the handler is made; until it is there, `/health` says so. */
  readonly eager?: boolean;
  /** About how much memory it will take, in bytes. Absent: it counts for nothing until it is open. */
  memory?(): Promise<number>;
  /** Called when the model is first asked for, and again after it has failed, was closed or was lost. */
  open(): Promise<TextModel>;
  /**
   * Frees what `open` gave. Absent: whoever opens a model disposes of it, and the handler keeps it once it is open.
   * Never called while a request uses the model.
   */
  close?(model: TextModel): Promise<void>;
}

/** The use of a model, by one request. */
export interface Lease {
  readonly model: TextModel;
  /** Says that the use is over; calling it again does nothing. */
  end(): void;
  /** Says that the model cannot go on: it is opened anew for the next request, and whoever uses it is told. */
  lose(cause: ModelLostError): void;
}

interface Using {
  readonly onLost: (cause: ModelLostError) => void;
}

/** A request that waits for the model to be there. */
interface Claim extends Using {
  readonly resolve: (lease: Lease) => void;
  readonly reject: (cause: unknown) => void;
}

export interface ServedOptions {
  readonly maxWaiting: number;
  readonly memory: MemoryBudget;
  readonly onError: (cause: unknown) => void;
}

/** Uses of all models, counted. */
let uses = 0;

/**
 * A model or what one comes of, with the queue of those who want it. It is opened for the first of them, stays for the
 * next, and goes when the memory is needed or it has broken down.
 */
export class Served implements Resident {
  readonly id: string;
  readonly created: number;
  readonly eager: boolean;
  readonly queue: TurnQueue;
  /** How often it was opened. */
  loads = 0;
  lastUsed = 0;
  readonly removable: boolean;
  readonly #source: ModelSource;
  readonly #memory: MemoryBudget;
  readonly #onError: (cause: unknown) => void;
  readonly #claims = new Set<Claim>();
  readonly #using = new Set<Using>();
  #model: TextModel | undefined;
  /** One that broke down, until those who use it have left. */
  #broken: TextModel | undefined;
  /** What was said of its memory. */
  #estimate = 0;
  #held = false;
  /** While it is being opened, or closed. */
  #changing = false;
  /** Set while it waits for memory. */
  #waiting: AbortController | undefined;

  constructor(source: ModelSource | TextModel, { maxWaiting, memory, onError }: ServedOptions) {
    this.id = source.id;
    this.created = source.created;
    this.queue = new TurnQueue(maxWaiting);
    this.#memory = memory;
    this.#onError = onError;
    if ('open' in source) {
      this.#source = source;
      this.eager = source.eager ?? false;
    } else {
      this.#source = { id: source.id, created: source.created, open: async () => source };
      this.eager = false;
      this.#use(source);
    }
    this.removable = this.#source.close !== undefined;
    if (this.eager) void this.#load();
  }

  get ready(): boolean {
    return this.#model !== undefined;
  }

  /** What it takes in memory, as far as it is known. */
  get bytes(): number {
    return this.#model?.bytes ?? this.#estimate;
  }

  get idle(): boolean {
    return this.#using.size === 0;
  }

  /**
   * The model, for one request. One that is not there yet is waited for, but not for long.
   *
   * @param onLost told when the model breaks down during the use, whoever notices
   * @throws ApiError 503 while it is loading, or waits for memory; 500 when it cannot be loaded
   */
  async use(waitMs: number, signal: AbortSignal, onLost: Using['onLost'] = () => {}): Promise<Lease> {
    signal.throwIfAborted();
    if (this.#model !== undefined && !this.#held) return this.#lease(this.#model, { onLost });
    return new Promise((resolve, reject) => {
      const over = () => {
        clearTimeout(timer);
        signal.removeEventListener('abort', leave);
        this.#claims.delete(claim);
        // Room that nobody waits for any more is room for others.
        if (!this.#wanted) this.#waiting?.abort();
      };
      const claim: Claim = {
        onLost,
        resolve: (lease) => {
          over();
          resolve(lease);
        },
        reject: (cause) => {
          over();
          reject(cause);
        },
      };
      const leave = () => claim.reject(signal.reason);
      const timer = setTimeout(() => claim.reject(this.#loading()), waitMs);
      signal.addEventListener('abort', leave, { once: true });
      this.#claims.add(claim);
      void this.#load();
    });
  }

  /** Puts the model out; nobody uses it. */
  unload(): void {
    void this.#close();
  }

  hold(held: boolean): void {
    this.#held = held;
    this.#grant();
  }

  /** Whether opening it serves anybody. */
  get #wanted(): boolean {
    return this.#claims.size > 0 || (this.eager && this.loads === 0);
  }

  #loading(): ApiError {
    return unavailable(`The model ${JSON.stringify(this.id)} is loading.`, 'model_loading', 2);
  }

  #use(model: TextModel): void {
    this.#model = model;
    this.loads += 1;
    this.lastUsed = ++uses;
    this.queue.places = model.concurrency ?? 1;
  }

  #lease(model: TextModel, using: Using): Lease {
    const own = { ...using };
    this.#using.add(own);
    this.lastUsed = ++uses;
    return {
      model,
      end: () => {
        if (!this.#using.delete(own)) return;
        this.lastUsed = ++uses;
        if (this.#model === undefined) void this.#close();
        else this.#memory.released();
      },
      lose: (cause) => this.#lose(model, cause),
    };
  }

  /** Those who wait begin; all at once, before anybody else can find the model idle. */
  #grant(): void {
    if (this.#held) return;
    for (const claim of [...this.#claims]) {
      if (this.#model === undefined) return;
      claim.resolve(this.#lease(this.#model, claim));
    }
  }

  async #load(): Promise<void> {
    if (this.#changing || this.#model !== undefined || this.#broken !== undefined) return;
    this.#changing = true;
    try {
      this.#estimate = (await this.#source.memory?.()) ?? 0;
      await this.#enter();
      this.#use(await this.#source.open());
    } catch (cause) {
      this.#changing = false;
      this.#memory.free(this);
      const failure = this.#failure(cause);
      if (failure !== undefined) for (const { reject } of [...this.#claims]) reject(failure);
      this.#again();
      return;
    }
    // Those who wait come before others who may want its room at once.
    this.#changing = false;
    this.#grant();
    this.#memory.settle(this);
  }

  async #enter(): Promise<void> {
    const waiting = new AbortController();
    this.#waiting = waiting;
    try {
      if (!this.#wanted) throw new GivenUpError();
      await this.#memory.enter(this, this.#estimate, waiting.signal);
    } catch (cause) {
      throw waiting.signal.aborted ? new GivenUpError() : cause;
    } finally {
      this.#waiting = undefined;
    }
  }

  #failure(cause: unknown): ApiError | undefined {
    if (cause instanceof GivenUpError) return undefined;
    this.#onError(cause);
    if (cause instanceof TooLargeError) return tooLarge(this.id, cause);
    return new ApiError(500, `The model ${JSON.stringify(this.id)} cannot be loaded.`, {
      code: 'model_load_failed',
    });
  }

  #lose(model: TextModel, cause: ModelLostError): void {
    if (this.#model !== model) return;
    this.#model = undefined;
    this.#broken = model;
    this.#onError(cause);
    for (const { onLost } of [...this.#using]) onLost(cause);
    if (this.idle) void this.#close();
  }

  async #close(): Promise<void> {
    const model = this.#model ?? this.#broken;
    if (model === undefined || !this.idle || this.#changing) return;
    this.#model = undefined;
    this.#broken = undefined;
    this.#changing = true;
    try {
      await this.#source.close?.(model);
    } catch (cause) {
      this.#onError(cause);
    } finally {
      this.#changing = false;
      this.#memory.free(this);
    }
    this.#again();
  }

  /** For those who came meanwhile. */
  #again(): void {
    if (this.#claims.size > 0) void this.#load();
  }
}

/** Nobody waits for the model any more. */
class GivenUpError extends Error {
  override readonly name = 'GivenUpError';
}

function tooLarge(id: string, { bytes, limit }: TooLargeError): ApiError {
  return new ApiError(
    500,
    `The model ${JSON.stringify(id)} needs about ${mebibytes(bytes)} MiB of memory; the server may use ${mebibytes(limit)}.`,
    // Another try would end no better.
    { code: 'model_too_large', headers: { 'x-should-retry': 'false' } },
  );
}

function mebibytes(bytes: number): number {
  return Math.ceil(bytes / 2 ** 20);
}
