import { execFile } from 'node:child_process';
import type { z } from 'zod';

/**
 * Runs Node.js in a process of its own and reads the last line of its output as JSON: whatever a driver does there, this
 * process goes on. The process is killed when its time is up.
 *
 * @returns `answer` when there is one of that shape; else `ended`, how the process came to its end
 * @throws the signal's reason
 */
export async function answerOf<T>(
  argv: readonly string[],
  options: {
    readonly timeoutMs: number;
    readonly signal: AbortSignal | undefined;
    readonly schema: z.ZodType<T>;
  },
): Promise<{ answer: T | undefined; ended: string | undefined }> {
  const { timeoutMs, signal, schema } = options;
  signal?.throwIfAborted();
  const { stdout, ended } = await run(argv, timeoutMs, signal);
  signal?.throwIfAborted();
  const answer = schema.safeParse(lastJson(stdout));
  return { answer: answer.success ? answer.data : undefined, ended };
}

function run(
  argv: readonly string[],
  timeout: number,
  signal: AbortSignal | undefined,
): Promise<{ stdout: string; ended: string | undefined }> {
  const env = { ...process.env, ORT_DISABLE_TELEMETRY: process.env.ORT_DISABLE_TELEMETRY ?? '1' };
  return new Promise((resolve) => {
    const settings = { env, timeout, encoding: 'utf8' as const, killSignal: 'SIGKILL' as const };
    execFile(
      process.execPath,
      argv,
      signal === undefined ? settings : { ...settings, signal },
      (error, stdout) => {
        let ended: string | undefined;
        if (error?.killed) ended = `it did not answer within ${timeout / 1000} s`;
        else if (error?.signal) ended = `the process that tried it crashed (${error.signal})`;
        else if (error) ended = `the process that tried it ended with code ${error.code ?? 'unknown'}`;
        resolve({ stdout, ended });
      },
    );
  });
}

function lastJson(stdout: string): unknown {
  const line = stdout.trim().split('\n').at(-1) ?? '';
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}
