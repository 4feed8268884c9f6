import { badRequest } from '../http/error.js';

/** How much one request may ask for. */
export interface Limits {
  /** Bytes of a body; 1 MiB when absent. */
  readonly bodyBytes: number;
  /** Milliseconds in which a body must have come; 30,000 when absent. */
  readonly bodyMs: number;
  /** Levels of arrays and objects in a body; 64 when absent. */
  readonly bodyDepth: number;
  /** Answers to one prompt (`n`); 8 when absent. */
  readonly choices: number;
  /** Prompts of one completion; 128 when absent. */
  readonly prompts: number;
  /** `top_logprobs`; 20 when absent. */
  readonly topLogprobs: number;
  /** Stop strings; 4 when absent. */
  readonly stops: number;
  /** Characters of a stop string; 256 when absent. */
  readonly stopLength: number;
  /** Tokens with a bias; 1,024 when absent. */
  readonly biases: number;
  /** Messages of a chat; 1,024 when absent. */
  readonly messages: number;
  /** Tools; 64 when absent. */
  readonly tools: number;
  /** Characters of a JSON Schema, those of all tools together; 65,536 when absent. */
  readonly schemaLength: number;
  /** Levels of a JSON Schema; 24 when absent. */
  readonly schemaDepth: number;
}

export const LIMITS: Limits = {
  bodyBytes: 1024 * 1024,
  bodyMs: 30_000,
  bodyDepth: 64,
  choices: 8,
  prompts: 128,
  topLogprobs: 20,
  stops: 4,
  stopLength: 256,
  biases: 1024,
  messages: 1024,
  tools: 64,
  schemaLength: 64 * 1024,
  schemaDepth: 24,
};

/** @throws ApiError 400 that names the parameter when it asks for more than the server gives */
export function cap(value: number, limit: number, param: string, what: string): void {
  if (value > limit)
    throw badRequest(
      `The parameter ${param} is not valid: at most ${limit} ${what}.`,
      param,
      'limit_exceeded',
    );
}
