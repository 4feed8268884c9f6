import type { Metrics } from './metrics.js';

/** A logger that takes an object and a message, such as pino's. */
export interface Logger {
  info(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

/** What is known of one request when it is over; times in milliseconds. */
export interface RequestFields {
  readonly requestId: string;
  readonly method: string;
  /** The place in the interface, not the path a client sent. */
  readonly route: string;
  status: number;
  code?: string;
  model?: string;
  stream?: boolean;
  choices?: number;
  promptTokens?: number;
  completionTokens?: number;
  /** From the request to its turn. */
  waitedMs?: number;
  /** From the turn to the first token. */
  firstTokenMs?: number;
  /** Of the prompts' tokens, those that need not be read. */
  cachedTokens?: number;
  /** Reading the prompts, up to the first token; generating from there on. */
  promptMs?: number;
  predictedMs?: number;
  /** Where tokens are drafted: how many were, and how many were right. */
  draftedTokens?: number;
  acceptedTokens?: number;
  /** Only when it was asked for. */
  prompt?: unknown;
}

/** Keeps what happens to a request, and tells of it once, when it is over. */
export class RequestRecord {
  readonly fields: RequestFields;
  readonly #began = performance.now();
  readonly #logger: Logger | undefined;
  readonly #metrics: Metrics | undefined;
  #turn = this.#began;
  #over = false;

  constructor(fields: RequestFields, logger: Logger | undefined, metrics: Metrics | undefined) {
    this.fields = fields;
    this.#logger = logger;
    this.#metrics = metrics;
  }

  turn(): void {
    this.#turn = performance.now();
    this.fields.waitedMs = round(this.#turn - this.#began);
  }

  token(): void {
    this.fields.firstTokenMs ??= round(performance.now() - this.#turn);
  }

  end(): void {
    if (this.#over) return;
    this.#over = true;
    const durationMs = round(performance.now() - this.#began);
    const fields = { ...this.fields, durationMs };
    this.#metrics?.observe(fields);
    if (fields.status >= 500) this.#logger?.error(fields, 'request failed');
    else this.#logger?.info(fields, 'request');
  }
}

function round(milliseconds: number): number {
  return Math.round(milliseconds * 10) / 10;
}
