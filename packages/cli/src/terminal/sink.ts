/** Where text goes: a standard stream of the process, or a string in tests. */
export interface Sink {
  write(text: string): unknown;
  readonly isTTY?: boolean | undefined;
}
