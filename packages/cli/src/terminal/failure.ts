import { CqilError, VerificationError } from '@cqil/core';
import type { Sink } from './sink.js';

/** Exit codes of the command line. A signal's are 128 and its number. */
export const EXIT = { well: 0, checkFailed: 1, badInput: 2, interrupted: 130 } as const;

/** A failure as programs read it with `--json`. */
export interface FailureDocument {
  readonly error: {
    readonly code: string;
    readonly message: string;
    readonly expected?: string;
    readonly found?: string;
    readonly hint?: string;
  };
}

export function isAbort(error: unknown): boolean {
  return error instanceof Error && (error.name === 'AbortError' || isAbort(error.cause));
}

export function exitCodeOf(error: unknown): number {
  if (isAbort(error)) return EXIT.interrupted;
  return error instanceof VerificationError ? EXIT.checkFailed : EXIT.badInput;
}

export function failureDocument(error: unknown): FailureDocument {
  if (error instanceof CqilError) {
    const { code, expected, found, hint } = error;
    return {
      error: {
        code,
        message: error.message.split('\n')[0] ?? '',
        ...(expected === undefined ? {} : { expected }),
        ...(found === undefined ? {} : { found }),
        ...(hint === undefined ? {} : { hint }),
      },
    };
  }
  if (isAbort(error))
    return { error: { code: 'STOPPED', message: 'Stopped; nothing was left half-written.' } };
  const message = error instanceof Error ? error.message : String(error);
  const system = (error as NodeJS.ErrnoException | undefined)?.code;
  if (typeof system === 'string' && /^E[A-Z]+$/.test(system)) {
    return { error: { code: `SYSTEM_${system}`, message } };
  }
  return {
    error: {
      code: 'INTERNAL',
      message,
      hint: 'this is a fault of cqil: run again with CQIL_DEBUG=1 and report it',
    },
  };
}

/** `code: message`, then what was expected, what was found and what to do, each on a line. */
export function printFailure(error: unknown, sink: Sink, debug: boolean): void {
  const { code, message, expected, found, hint } = failureDocument(error).error;
  const lines = [`${code}: ${message}`];
  if (expected !== undefined) lines.push(`  expected: ${expected}`);
  if (found !== undefined) lines.push(`  found: ${found}`);
  if (hint !== undefined) lines.push(`  what to do: ${hint}`);
  if (debug && error instanceof Error && error.stack !== undefined) lines.push(error.stack);
  sink.write(`${lines.join('\n')}\n`);
}
