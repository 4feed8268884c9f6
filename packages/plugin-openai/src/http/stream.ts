import type { AnswerPart } from '../text/answer.js';
import { asApiError } from './error.js';
import { type Dialect, type RequestFrame, usageOf } from './objects.js';

interface StreamOptions {
  readonly dialect: Dialect;
  readonly frame: RequestFrame;
  readonly promptTokens: number;
  readonly includeUsage: boolean;
  /** Ends the generation within one token. */
  readonly gone: AbortController;
  /** Called when the stream is over, for whatever reason; perhaps twice. */
  readonly onEnd: () => void;
  /** Told of a fault in the model. */
  readonly onError: (cause: unknown) => void;
}

/**
 * An answer as server-sent events, one JSON object each, and `[DONE]` at the end. A part is generated when the
 * reader asks for it; a reader who goes away ends the generation.
 */
export function streamResponse(parts: AsyncGenerator<AnswerPart, void>, options: StreamOptions): Response {
  const encoder = new TextEncoder();
  const events = eventsOf(parts, options);
  const { gone, onEnd } = options;
  const finish = () => events.return().finally(onEnd);
  gone.signal.addEventListener('abort', () => void finish(), { once: true });
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      const { done, value } = await events.next();
      if (done) controller.close();
      else controller.enqueue(encoder.encode(`data: ${value}\n\n`));
    },
    async cancel(reason) {
      gone.abort(reason);
      await finish();
    },
  });
  return new Response(body, {
    headers: {
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-cache',
      // Asks proxies not to hold events back.
      'x-accel-buffering': 'no',
    },
  });
}

async function* eventsOf(
  parts: AsyncGenerator<AnswerPart, void>,
  { dialect, frame, promptTokens, includeUsage, gone, onEnd, onError }: StreamOptions,
): AsyncGenerator<string, void> {
  // With usage asked for, every event but the last says that it has none.
  const event = (object: object) => JSON.stringify(includeUsage ? { ...object, usage: null } : object);
  try {
    for (const object of dialect.opening(frame)) yield event(object);
    for await (const { text, tokens, finishReason } of parts) {
      if (text !== '') yield event(dialect.piece(frame, text));
      if (finishReason === undefined) continue;
      yield event(dialect.closing(frame, finishReason));
      if (includeUsage) yield JSON.stringify(dialect.usage(frame, usageOf(promptTokens, tokens)));
    }
    yield '[DONE]';
  } catch (cause) {
    if (gone.signal.aborted) return;
    // The status has been sent; an event that holds an error is what is left to say.
    onError(cause);
    yield JSON.stringify(asApiError(cause).body());
  } finally {
    onEnd();
  }
}
