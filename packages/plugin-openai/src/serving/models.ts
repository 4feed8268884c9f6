import { UsageError } from '@cqil/core';
import { ApiError } from '../http/error.js';
import type { TextModel } from '../model.js';
import { MemoryBudget } from './memory.js';
import { type ModelSource, Served } from './served.js';

export interface ModelsOptions {
  readonly maxWaiting: number;
  /** By id, the model that answers instead when `fallbackWaiting` requests wait. */
  readonly fallbacks: Readonly<Record<string, string>>;
  readonly fallbackWaiting: number;
  /** Bytes that all models may take together. */
  readonly memoryBytes: number;
  readonly onError: (cause: unknown) => void;
}

/**
 * All models, by id.
 *
 * @throws UsageError `MODELS_INVALID` without a model, with two of one id, with a fallback to or from none, or without
 *   memory
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
    const { maxWaiting, memoryBytes, onError } = options;
    if (!(memoryBytes > 0)) {
      throw new UsageError('MODELS_INVALID', 'There is no memory for models.', {
        expected: 'more than 0 bytes',
        found: String(memoryBytes),
      });
    }
    const memory = new MemoryBudget(memoryBytes);
    this.all = sources.map((source) => new Served(source, { maxWaiting, memory, onError }));
    this.#byId = new Map(this.all.map((one) => [one.id, one]));
  }

  /** Whether everything that was to be opened at the start has been. */
  get ready(): boolean {
    return this.all.every(({ eager, loads }) => loads > 0 || !eager);
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
