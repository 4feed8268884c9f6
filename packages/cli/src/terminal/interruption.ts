/** What the shell expects of a process that a signal stopped: 128 and the signal's number. */
const EXIT_CODES = { SIGINT: 130, SIGTERM: 143 } as const;

export interface Interruption {
  /** Fires on the first Ctrl-C or SIGTERM; long work stops and cleans up after itself. */
  readonly signal: AbortSignal;
  /** The exit code the signal asks for, or `undefined` when none came. */
  exitCode(): number | undefined;
}

/** Turns the first SIGINT or SIGTERM into an abort; the second ends the process at once. */
export function interruption(process: Pick<NodeJS.Process, 'on' | 'exit'>): Interruption {
  const controller = new AbortController();
  let code: number | undefined;
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.on(name, () => {
      if (code !== undefined) process.exit(code);
      code = EXIT_CODES[name];
      controller.abort(new DOMException(`stopped by ${name}`, 'AbortError'));
    });
  }
  return { signal: controller.signal, exitCode: () => code };
}
