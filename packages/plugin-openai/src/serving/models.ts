import { UsageError } from '@cqil/core';
import { ApiError, unavailable } from '../http/error.js';
import type { TextModel } from '../model.js';
import { TurnQueue } from './queue.js';

/** A model that is opened when it is first asked for. */
export interface ModelSource {
  /** The name by which requests ask for it. */
  readonly id: string;
  /** When the model was made, in seconds since 1970. */
  readonly created: number;
  /** Opens it as soon as the handler is made; until it is there, `/health` says so. */
  readonly eager?: boolean;
  /** Called once, and again after it has failed. Whoever opens a model disposes of it. */
  open(): Promise<TextModel>;
}

/** A model or what one comes of, with the queue of those who want it. */
export class Served {
  readonly id: string;
  readonly created: number;
  readonly eager: boolean;
  readonly queue: TurnQueue;
  readonly #open: () => Promise<TextModel>;
  readonly #onError: (cause: unknown) => void;
  #model: TextModel | undefined;
  #opening: Promise<TextModel> | undefined;

  constructor(source: ModelSource | TextModel, maxWaiting: number, onError: (cause: unknown) => void) {
    this.id = source.id;
    this.created = source.created;
    this.queue = new TurnQueue(maxWaiting);
    this.#onError = onError;
    if ('open' in source) {
      this.eager = source.eager ?? false;
      this.#open = () => source.open();
    } else {
      this.eager = false;
      this.#use(source);
      this.#open = async () => source;
    }
    if (this.eager) this.#load().catch(() => {});
  }

  get ready(): boolean {
    return this.#model !== undefined;
  }

  /**
   * The model; one that is not there yet is waited for, but not for long.
   *
   * @throws ApiError 503 while it is loading; 500 when it cannot be loaded
   */
  async model(waitMs: number, signal: AbortSignal): Promise<TextModel> {
    if (this.#model !== undefined) return this.#model;
    const loading = this.#load();
    let timer: NodeJS.Timeout | undefined;
    let leave = () => {};
    const enough = new Promise<never>((_, reject) => {
      leave = () => reject(signal.reason);
      signal.addEventListener('abort', leave, { once: true });
      timer = setTimeout(
        () => reject(unavailable(`The model ${JSON.stringify(this.id)} is loading.`, 'model_loading', 2)),
        waitMs,
      );
    });
    try {
      return await Promise.race([loading, enough]);
    } finally {
      clearTimeout(timer);
      signal.removeEventListener('abort', leave);
    }
  }

  #use(model: TextModel): void {
    this.#model = model;
    this.queue.places = model.concurrency ?? 1;
  }

  #load(): Promise<TextModel> {
    this.#opening ??= this.#open()
      .then((model) => {
        this.#use(model);
        return model;
      })
      .catch((cause: unknown) => {
        this.#opening = undefined;
        this.#onError(cause);
        throw new ApiError(500, `The model ${JSON.stringify(this.id)} cannot be loaded.`, {
          code: 'model_load_failed',
        });
      });
    return this.#opening;
  }
}

export interface ModelsOptions {
  readonly maxWaiting: number;
  /** By id, the model that answers instead when `fallbackWaiting` requests wait. */
  readonly fallbacks: Readonly<Record<string, string>>;
  readonly fallbackWaiting: number;
  readonly onError: (cause: unknown) => void;
}

/**
 * All models, by id.
 *
 * @throws UsageError `MODELS_INVALID` without a model, with two of one id, or with a fallback to or from none
 */
export class Models {
  readonly all: readonly Served[];
  readonly #byId: ReadonlyMap<string, Served>;
  readonly #fallbacks: ReadonlyMap<string, string>;
  readonly #fallbackWaiting: number;

  constructor(sources: readonly (ModelSource | TextModel)[], options: ModelsOptions) {
    const ids = sources.map(({ id }) => id);
    if (ids.length === 0 || new Set(ids).size !== ids.length) {
      throw new UsageError('MODELS_INVALID', 'There must be models, and each must have an id of its own.', {
        expected: 'one model or more, with different ids',
        found: ids.join(', ') || 'none',
      });
    }
    this.#fallbacks = new Map(Object.entries(options.fallbacks));
    this.#fallbackWaiting = options.fallbackWaiting;
    const missing = [...this.#fallbacks].flat().find((id) => !ids.includes(id));
    if (missing !== undefined) {
      throw new UsageError('MODELS_INVALID', 'A fallback names a model that is not there.', {
        expected: ids.join(', '),
        found: missing,
      });
    }
    this.all = sources.map((source) => new Served(source, options.maxWaiting, options.onError));
    this.#byId = new Map(this.all.map((one) => [one.id, one]));
  }

  /** Whether everything that was to be opened at the start is. */
  get ready(): boolean {
    return this.all.every(({ eager, ready }) => ready || !eager);
  }

  /** @throws ApiError 404 */
  find(id: string): Served {
    const found = this.#byId.get(id);
    if (found !== undefined) return found;
    throw new ApiError(404, `The model ${JSON.stringify(id)} does not exist.`, {
      param: 'model',
      code: 'model_not_found',
    });
  }

  /**
   * The model that is to answer: the one that is asked for, or under load the one that answers instead.
   *
   * @throws ApiError 404
   */
  choose(id: string): Served {
    const asked = this.find(id);
    const { waiting } = asked.queue;
    const instead = this.#byId.get(this.#fallbacks.get(id) ?? '');
    return instead !== undefined && waiting >= this.#fallbackWaiting && instead.queue.waiting < waiting
      ? instead
      : asked;
  }
}
