import type { ChoiceRequest, Job } from '../api/job.js';
import type { TokenCount } from '../api/writer.js';
import { asApiError } from '../http/error.js';
import type { ServerEvent } from '../http/events.js';
import { ModelLostError } from '../model.js';
import { type AnswerPart, answer } from '../text/answer.js';
import { endError, type Life } from './life.js';
import type { RequestRecord } from './record.js';
import type { Lease } from './served.js';
import { Stopwatch } from './stopwatch.js';

interface WorkOptions {
  readonly lease: Lease;
  readonly job: Job;
  /** The turn at the model: a function that ends it. */
  readonly turn: Promise<() => void>;
  readonly life: Life;
  readonly record: RequestRecord;
  /** Whether answers tell how long they took. */
  readonly timings: boolean;
  readonly onError: (cause: unknown) => void;
}

/** One job at work: its choices are generated one after the other within one turn. */
export class Work {
  readonly #options: WorkOptions;
  readonly #watch = new Stopwatch();
  readonly #timings = () => this.#watch.timings;
  #begun = false;
  #tokens = 0;
  /** Of the first choice: the others have the same prompt. */
  #cached: number | undefined;

  constructor(options: WorkOptions) {
    this.#options = options;
    const { turn, life } = options;
    // A stream that nobody ever reads from leaves a turn that nobody would end.
    const giveBack = () => {
      if (this.#begun) return;
      turn.then((end) => end()).catch(() => {});
      this.#over();
    };
    if (life.signal.aborted) giveBack();
    else life.signal.addEventListener('abort', giveBack, { once: true });
    turn.catch(() => {});
  }

  /** The whole answer's object. */
  async whole(): Promise<object> {
    const { writer } = this.#options.job;
    try {
      for await (const [choice, part] of this.#parts()) if (part !== undefined) writer.part(choice, part);
      return writer.whole(this.#count());
    } finally {
      this.#note();
    }
  }

  /** The answer's events; a fault after the first is an event, too. */
  async *events(): AsyncGenerator<ServerEvent, void> {
    const { job, lease, life, record, onError } = this.#options;
    const { writer } = job;
    const timings = this.#options.timings ? this.#timings : undefined;
    let opened = false;
    try {
      for await (const [choice, part] of this.#parts()) {
        if (!opened) yield* writer.opening();
        opened = true;
        if (part !== undefined) yield* writer.part(choice, part, timings);
      }
      yield* writer.closing(this.#count());
    } catch (cause) {
      if (cause instanceof ModelLostError) lease.lose(cause);
      const ended = life.signal.aborted ? endError(life.signal.reason) : asApiError(cause);
      if (ended === undefined) {
        // Nobody reads on.
        record.fields.status = 499;
        return;
      }
      if (!life.signal.aborted && ended.status >= 500) onError(cause);
      record.fields.code = ended.code;
      record.fields.status = ended.status;
      if (!opened) yield* writer.opening();
      yield* writer.failure(ended, this.#count());
    } finally {
      this.#over();
    }
  }

  /** The first is no part yet: it says that the turn has come. */
  async *#parts(): AsyncGenerator<[choice: number, part: AnswerPart | undefined]> {
    const { job, turn, life, record } = this.#options;
    this.#begun = true;
    const end = await turn;
    try {
      record.turn();
      yield [0, undefined];
      for (const [choice, request] of job.choices.entries()) {
        const before = this.#tokens;
        for await (const part of this.#answer(request)) {
          if (part.cachedTokens !== undefined) {
            this.#cached ??= part.cachedTokens;
            continue;
          }
          if (part.tokens > 0) record.token();
          this.#tokens = before + part.tokens;
          yield [choice, part];
        }
      }
    } finally {
      end();
    }
    life.signal.throwIfAborted();
  }

  #answer(request: ChoiceRequest): AsyncIterable<AnswerPart> {
    const { lease, job, life } = this.#options;
    if (request.maxTokens === 0 && request.promptLogprobs !== true) return nothing();
    const pieces = lease.model.generate({ ...request, signal: life.signal });
    return answer(this.#watch.time(pieces, request.promptIds.length), job.stop);
  }

  #count(): TokenCount {
    return {
      prompt: this.#options.job.promptTokens,
      completion: this.#tokens,
      cached: this.#cached ?? 0,
      timings: this.#options.timings ? this.#watch.timings : undefined,
    };
  }

  #note(): void {
    const { record, job } = this.#options;
    record.fields.completionTokens = this.#tokens;
    record.fields.choices = job.choices.length;
    const { cache_n, prompt_n, prompt_ms, predicted_ms, draft_n, draft_n_accepted } = this.#watch.timings;
    // What never had its turn has read nothing.
    if (cache_n + prompt_n === 0) return;
    record.fields.cachedTokens = cache_n;
    record.fields.promptMs = prompt_ms;
    record.fields.predictedMs = predicted_ms;
    if (draft_n !== undefined) record.fields.draftedTokens = draft_n;
    if (draft_n_accepted !== undefined) record.fields.acceptedTokens = draft_n_accepted;
  }

  /** A stream is over later than the call that it answers. */
  #over(): void {
    const { life, record } = this.#options;
    this.#note();
    life.end();
    record.end();
  }
}

/** A prompt's echo alone needs no model. */
async function* nothing(): AsyncGenerator<AnswerPart> {
  yield { text: '', tokens: 0, logprobs: [], finishReason: 'length' };
}
