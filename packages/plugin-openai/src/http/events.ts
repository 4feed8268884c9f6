/** An event of a stream: an object as JSON, or a word. */
export interface ServerEvent {
  /** For streams whose events have names. */
  readonly name?: string;
  readonly data: object | string;
}

export interface EventStreamOptions {
  /** A comment goes out after so many milliseconds in which nothing else did. */
  readonly pingMs: number;
  /** A reader that takes nothing for so many milliseconds is cut off. */
  readonly slowReaderMs: number;
  /** Told when the reader went away or was too slow, with the reason. */
  readonly onGone: (reason: unknown) => void;
}

/** The reader of a stream took nothing for too long. */
export class SlowReaderError extends Error {
  override readonly name = 'SlowReaderError';
  constructor() {
    super('The reader of the stream was too slow.');
  }
}

/**
 * Events as a response of server-sent events. An event is asked for when the reader wants it, so a slow reader slows
 * down what makes the events; one who goes away ends it.
 */
export function eventStream(
  events: AsyncGenerator<ServerEvent, void>,
  { pingMs, slowReaderMs, onGone }: EventStreamOptions,
): Response {
  const encoder = new TextEncoder();
  let waiting: Promise<IteratorResult<ServerEvent, void>> | undefined;
  let idle: NodeJS.Timeout | undefined;
  const body = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        clearTimeout(idle);
        // An event that is still to come when a ping goes out is waited for by the next pull.
        waiting ??= events.next();
        const next = await first(waiting, pingMs);
        if (next === undefined) controller.enqueue(encoder.encode(': ping\n\n'));
        else {
          waiting = undefined;
          if (next.done === true) return controller.close();
          controller.enqueue(encoder.encode(frameOf(next.value)));
        }
        idle = setTimeout(() => {
          const reason = new SlowReaderError();
          onGone(reason);
          controller.error(reason);
          void events.return();
        }, slowReaderMs);
      },
      async cancel(reason) {
        clearTimeout(idle);
        onGone(reason);
        await events.return();
      },
    },
    // Nothing is made before it is asked for.
    { highWaterMark: 0 },
  );
  return new Response(body, {
    headers: {
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-cache',
      // Asks proxies not to hold events back.
      'x-accel-buffering': 'no',
    },
  });
}

function frameOf({ name, data }: ServerEvent): string {
  const text = typeof data === 'string' ? data : JSON.stringify(data);
  return `${name === undefined ? '' : `event: ${name}\n`}data: ${text}\n\n`;
}

/** What comes of the promise, or nothing when it takes longer. */
async function first<T>(promise: Promise<T>, milliseconds: number): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), milliseconds);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
