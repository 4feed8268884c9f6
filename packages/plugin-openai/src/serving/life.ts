import { ApiError, modelLost, unavailable } from '../http/error.js';
import { ModelLostError } from '../model.js';

/** The server ended a request that took too long. */
export class DeadlineError extends Error {
  override readonly name = 'DeadlineError';
}

/** The server ended a request because it is about to close. */
export class DrainedError extends Error {
  override readonly name = 'DrainedError';
}

/** How long one request is worked on: until it is answered, its client is gone, or the server has had enough. */
export class Life {
  readonly #controller = new AbortController();
  readonly #client: AbortSignal;
  readonly #timer: NodeJS.Timeout;
  readonly #onEnd: (() => void)[] = [];
  readonly #leave = () => this.abort(this.#client.reason);

  constructor(client: AbortSignal, deadlineMs: number) {
    this.#client = client;
    this.#timer = setTimeout(() => this.abort(new DeadlineError('The request took too long.')), deadlineMs);
    if (client.aborted) this.#leave();
    else client.addEventListener('abort', this.#leave, { once: true });
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  abort(reason: unknown): void {
    this.#controller.abort(reason);
  }

  /** Called once, when the request is over; what is added last comes first. */
  onEnd(callback: () => void): void {
    this.#onEnd.push(callback);
  }

  /** Lets go of the client's signal and the clock. */
  end(): void {
    clearTimeout(this.#timer);
    this.#client.removeEventListener('abort', this.#leave);
    for (const callback of this.#onEnd.splice(0).reverse()) callback();
  }
}

/** What a client that is still there is told of an end that came before the answer's; nothing when none is. */
export function endError(reason: unknown): ApiError | undefined {
  if (reason instanceof DeadlineError) {
    return new ApiError(504, 'The request took longer than the server gives one.', {
      type: 'timeout_error',
      code: 'deadline_exceeded',
    });
  }
  if (reason instanceof DrainedError) return draining();
  if (reason instanceof ModelLostError) return modelLost();
  return undefined;
}

export function draining(): ApiError {
  return unavailable('The server is closing.', 'server_draining', 5);
}
