/** ES2024, in every Node.js that this package runs on. */
interface WaitAsync {
  waitAsync(
    array: Int32Array,
    index: number,
    value: number,
  ): { async: false; value: string } | { async: true; value: Promise<string> };
}

/** Resolves when somebody notifies a word of shared memory, at once where it is no longer `value`. */
export async function changed(array: Int32Array, index: number, value: number): Promise<void> {
  const wait = (Atomics as unknown as WaitAsync).waitAsync(array, index, value);
  if (wait.async) await wait.value;
}
