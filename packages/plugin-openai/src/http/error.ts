import { CqilError } from '@cqil/core';
import { ModelLostError } from '../model.js';

/** An error that a client is told of, in the form that OpenAI's clients read. */
export class ApiError extends Error {
  override readonly name = 'ApiError';
  readonly status: number;
  readonly type: string;
  readonly param: string | null;
  readonly code: string;
  readonly headers: Readonly<Record<string, string>>;
  /** Further members of the error's object. */
  readonly more: Readonly<Record<string, unknown>>;

  constructor(
    status: number,
    message: string,
    details: {
      readonly type?: string;
      readonly param?: string | null;
      readonly code: string;
      readonly headers?: Readonly<Record<string, string>>;
      readonly more?: Readonly<Record<string, unknown>>;
    },
  ) {
    super(message);
    this.status = status;
    this.type = details.type ?? (status >= 500 ? 'server_error' : 'invalid_request_error');
    this.param = details.param ?? null;
    this.code = details.code;
    this.headers = details.headers ?? {};
    this.more = details.more ?? {};
  }

  /** The body: `{"error": {"message", "type", "param", "code"}}`. */
  body() {
    const { message, type, param, code, more } = this;
    return { error: { message, type, param, code, ...more } };
  }

  response(): Response {
    return Response.json(this.body(), { status: this.status, headers: this.headers });
  }
}

export function badRequest(
  message: string,
  param: string | null,
  code = 'invalid_value',
  more: Readonly<Record<string, unknown>> = {},
): ApiError {
  return new ApiError(400, message, { param, code, more });
}

/** Something that OpenAI's interface has, and this server or model has not. */
export function unsupported(param: string, why = ''): ApiError {
  return badRequest(
    `The parameter ${param} is not supported${why === '' ? '' : `: ${why}`}.`,
    param,
    'unsupported_parameter',
  );
}

/** The server does not answer now, and will later. */
export function unavailable(message: string, code: string, retryAfter: number): ApiError {
  return new ApiError(503, message, {
    type: 'service_unavailable_error',
    code,
    headers: { 'retry-after': String(retryAfter) },
  });
}

/** The model broke down; the next request finds it opened anew. */
export function modelLost(): ApiError {
  return new ApiError(500, 'The model broke down while it answered. It is opened anew: ask again.', {
    code: 'model_lost',
  });
}

/** What a client is told of a fault of ours: nothing that could hold a path or a prompt. */
export function asApiError(cause: unknown): ApiError {
  if (cause instanceof ApiError) return cause;
  if (cause instanceof ModelLostError) return modelLost();
  if (cause instanceof CqilError && cause.code === 'NO_TOKEN_LEFT') {
    return badRequest(
      'The biases and the format leave no token that could come.',
      'logit_bias',
      'no_token_left',
    );
  }
  return new ApiError(500, 'The model failed on this request.', { code: 'internal_error' });
}
