/**
 * The values of a generator, each handed out while the next is already being made: what is done with one costs the next no
 * time. Who leaves early ends the making, and waits for that.
 *
 * @param make begins the generator; it ends, by throwing the reason, when its signal is aborted
 * @param outer ends everything
 * @throws what the generator throws
 */
export async function* readAhead<Value>(
  make: (signal: AbortSignal) => AsyncGenerator<Value, unknown>,
  outer: AbortSignal,
): AsyncGenerator<Value, void> {
  const left = new AbortController();
  const values = make(AbortSignal.any([outer, left.signal]));
  let next = values.next();
  try {
    for (;;) {
      const { done, value } = await next;
      if (done === true) return;
      next = values.next();
      // Whose error it is shows when its turn comes.
      next.catch(() => {});
      yield value;
    }
  } finally {
    left.abort();
    await next.catch(() => {});
    await values.return(undefined);
  }
}
