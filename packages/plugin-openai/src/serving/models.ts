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
      this.#model = source;
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

  #load(): Promise<TextModel> {
    this.#opening ??= this.#open()
      .then((model) => {
        this.#model = model;
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

/**
 * All models, by id.
 *
 * @throws UsageError `MODELS_INVALID` without a model, or with two of one id
 */
export class Models {
  readonly all: readonly Served[];
  readonly #byId: ReadonlyMap<string, Served>;

  constructor(
    sources: readonly (ModelSource | TextModel)[],
    maxWaiting: number,
    onError: (cause: unknown) => void,
  ) {
    const ids = sources.map(({ id }) => id);
    if (ids.length === 0 || new Set(ids).size !== ids.length) {
      throw new UsageError('MODELS_INVALID', 'There must be models, and each must have an id of its own.', {
        expected: 'one model or more, with different ids',
        found: ids.join(', ') || 'none',
      });
    }
    this.all = sources.map((source) => new Served(source, maxWaiting, onError));
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
}
