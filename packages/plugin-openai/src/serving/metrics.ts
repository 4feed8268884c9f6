import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { RequestFields } from './record.js';
import type { Served } from './served.js';

/** Of one token. */
const TOKEN_SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1];
const SECONDS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300];

/** Numbers for Prometheus, in a registry of their own. */
export class Metrics {
  readonly #registry = new Registry();
  readonly #requests: Counter<'route' | 'status'>;
  readonly #duration: Histogram<'route'>;
  readonly #waited: Histogram<'model'>;
  readonly #firstToken: Histogram<'model'>;
  readonly #prompt: Histogram<'model'>;
  readonly #token: Histogram<'model'>;
  readonly #tokens: Counter<'kind' | 'model'>;

  constructor(models: readonly Served[]) {
    const registers = [this.#registry];
    this.#requests = new Counter({
      name: 'cqil_requests_total',
      help: 'Requests that are over, by place and status.',
      labelNames: ['route', 'status'],
      registers,
    });
    const histogram = <T extends string>(
      name: string,
      help: string,
      label: T,
      buckets: number[] = SECONDS,
    ): Histogram<T> => new Histogram({ name, help, labelNames: [label], buckets, registers });
    this.#duration = histogram('cqil_request_seconds', 'From a request to the end of its answer.', 'route');
    this.#waited = histogram('cqil_wait_seconds', 'From a request to its turn at the model.', 'model');
    this.#firstToken = histogram('cqil_first_token_seconds', 'From the turn to the first token.', 'model');
    this.#prompt = histogram('cqil_prompt_seconds', 'Reading the prompts of a request.', 'model');
    this.#token = histogram(
      'cqil_token_seconds',
      'A token behind the first, mean of a request.',
      'model',
      TOKEN_SECONDS,
    );
    this.#tokens = new Counter({
      name: 'cqil_tokens_total',
      help: 'Tokens of prompts (prompt), those of them known before (cached), and generated ones (completion); tokens that were drafted (drafted), and those of them that were right (accepted).',
      labelNames: ['model', 'kind'],
      registers,
    });
    const gauge = (name: string, help: string, value: (one: Served) => number) =>
      new Gauge({
        name,
        help,
        labelNames: ['model'],
        registers,
        collect() {
          for (const one of models) this.set({ model: one.id }, value(one));
        },
      });
    gauge('cqil_requests_waiting', 'Requests that wait for a model.', ({ queue }) => queue.waiting);
    gauge('cqil_requests_running', 'Requests that a model works on.', ({ queue }) => queue.running);
    gauge('cqil_model_bytes', 'Memory that a model takes, as far as is known.', ({ ready, bytes }) =>
      ready ? bytes : 0,
    );
    gauge('cqil_model_loads', 'How often a model was opened.', ({ loads }) => loads);
    gauge('cqil_model_loaded', '1 where a model is in memory.', ({ ready }) => (ready ? 1 : 0));
  }

  observe(fields: Readonly<RequestFields> & { readonly durationMs: number }): void {
    const { route, status, model, waitedMs, firstTokenMs, promptTokens, completionTokens } = fields;
    this.#requests.inc({ route, status: String(status) });
    this.#duration.observe({ route }, fields.durationMs / 1000);
    if (model === undefined) return;
    if (waitedMs !== undefined) this.#waited.observe({ model }, waitedMs / 1000);
    if (firstTokenMs !== undefined) this.#firstToken.observe({ model }, firstTokenMs / 1000);
    // What never had its turn has read nothing.
    if (waitedMs !== undefined && promptTokens !== undefined) {
      this.#tokens.inc({ model, kind: 'prompt' }, promptTokens);
    }
    const { cachedTokens, promptMs, predictedMs, draftedTokens, acceptedTokens } = fields;
    const kinds = {
      completion: completionTokens,
      cached: cachedTokens,
      drafted: draftedTokens,
      accepted: acceptedTokens,
    };
    for (const [kind, count] of Object.entries(kinds)) {
      if (count !== undefined) this.#tokens.inc({ model, kind }, count);
    }
    if (promptMs !== undefined) this.#prompt.observe({ model }, promptMs / 1000);
    if (predictedMs !== undefined && completionTokens !== undefined && completionTokens > 1) {
      this.#token.observe({ model }, predictedMs / 1000 / (completionTokens - 1));
    }
  }

  async response(): Promise<Response> {
    return new Response(await this.#registry.metrics(), {
      headers: { 'content-type': this.#registry.contentType },
    });
  }
}
