import { InferenceError } from '../errors.js';
import { check } from '../session/native/library.js';
import { LOG_LEVELS } from '../session/native/session-options.js';
import { runError } from '../session/ort-errors.js';
import type { Board } from './board.js';
import type { Transport, TransportSetup } from './transport/types.js';

export type MakeTransport = (setup: TransportSetup) => Transport;

export interface TeamSetup extends Omit<TransportSetup, 'board' | 'abort'> {
  /** What the model is called in errors. */
  readonly model: string;
  readonly makeTransport: MakeTransport;
}

export interface StepOptions {
  readonly signal: AbortSignal | undefined;
  /** Milliseconds that the step may take. */
  readonly deadlineMs: number | undefined;
}

/** How long a step that was given up may stay inside one operator before its threads are left behind. */
const GRACE_MS = 1000;

/** The devices of a partition at work on one board: a step ends for all of them, whatever becomes of one. */
export class Team {
  readonly board: Board;
  readonly #setup: TeamSetup;
  readonly #transport: Transport;
  #spent = true;
  #giveUp: ((why: 'signal' | 'deadline' | 'lost') => void) | undefined;
  #left: Promise<void> | undefined;

  constructor(board: Board, setup: TeamSetup) {
    this.board = board;
    this.#setup = setup;
    this.#transport = setup.makeTransport({ ...setup, board, abort: () => this.#giveUp?.('lost') });
  }

  /**
   * Set when threads did not answer any more and were left behind: the team must not be used again, and what its last
   * step worked on must stay until this resolves.
   */
  get left(): Promise<void> | undefined {
    return this.#left;
  }

  /** @throws InferenceError `EXECUTOR_DEVICE_LOST` where a device's thread cannot be started */
  ready(): Promise<void> {
    return this.#transport.ready();
  }

  /**
   * Does the step whose pointers lie on the board.
   *
   * @throws InferenceError `EXECUTOR_DEADLINE`, `EXECUTOR_DEVICE_LOST`, `RUN_FAILED`, `OUT_OF_MEMORY`; the signal's reason
   */
  async step({ signal, deadlineMs }: StepOptions): Promise<void> {
    signal?.throwIfAborted();
    const { board } = this;
    this.#renewOptions();
    let reason: 'signal' | 'deadline' | 'lost' | undefined;
    let grace: NodeJS.Timeout | undefined;
    let leave = () => {};
    const left = new Promise<'left'>((resolve) => {
      leave = () => resolve('left');
    });
    this.#giveUp = (why) => {
      reason ??= why;
      this.#terminate();
      grace ??= setTimeout(leave, GRACE_MS);
    };
    const onAbort = () => this.#giveUp?.('signal');
    signal?.addEventListener('abort', onAbort, { once: true });
    const deadline =
      deadlineMs === undefined ? undefined : setTimeout(() => this.#giveUp?.('deadline'), deadlineMs);
    try {
      const run = this.#transport.run();
      // Whether it was in time is asked below; a failure after that concerns nobody.
      run.catch(() => undefined);
      if ((await Promise.race([run, left])) === 'left') this.#left = this.#transport.leave();
    } catch (error) {
      // A device that ended because it was given up says nothing new.
      if (reason === undefined || reason === 'lost') throw error;
    } finally {
      this.#giveUp = undefined;
      signal?.removeEventListener('abort', onAbort);
      clearTimeout(deadline);
      clearTimeout(grace);
    }
    const failure = this.#failure();
    if (reason === 'deadline') throw tooLate(this.#setup.model, deadlineMs!);
    if (reason === 'signal') signal?.throwIfAborted();
    if (failure !== undefined) throw failure;
    if (board.aborted) throw stopped(this.#setup.model);
  }

  /** Ends the threads. Nothing touches the board afterwards. */
  async dispose(): Promise<void> {
    if (this.#left === undefined) await this.#transport.dispose();
    this.#releaseOptions();
  }

  /** The runs that go on end between two of their nodes, and who waits for another device waits no longer. */
  #terminate(): void {
    const { api } = this.#setup.library;
    this.#spent = true;
    this.board.abort();
    for (const { options } of this.board.programmes) {
      check(api, api.RunOptionsSetTerminate(this.board.pointers[options]!));
    }
  }

  /** What ONNX Runtime said about the first run that failed. */
  #failure(): InferenceError | undefined {
    if (this.#left !== undefined) return undefined;
    const { pointers, programmes } = this.board;
    let first: InferenceError | undefined;
    for (const { status } of programmes) {
      const pointer = pointers[status]!;
      if (pointer === 0n) continue;
      pointers[status] = 0n;
      // A run that was ended because another failed says so only.
      this.#spent = true;
      try {
        check(this.#setup.library.api, pointer);
      } catch (error) {
        first ??= runError(this.#setup.model, error);
      }
    }
    return first;
  }

  /** Run options that were told to end their run would end the next one, too. */
  #renewOptions(): void {
    if (!this.#spent) return;
    this.#releaseOptions();
    const { api } = this.#setup.library;
    for (const { options } of this.board.programmes) {
      const out = new BigUint64Array(1);
      check(api, api.CreateRunOptions(out));
      this.board.pointers[options] = out[0]!;
      check(api, api.RunOptionsSetRunLogSeverityLevel(out[0]!, LOG_LEVELS.silent));
    }
    this.#spent = false;
  }

  #releaseOptions(): void {
    // Threads that were left behind still read theirs.
    if (this.#left !== undefined) return;
    for (const { options } of this.board.programmes) {
      const pointer = this.board.pointers[options]!;
      if (pointer !== 0n) this.#setup.library.api.ReleaseRunOptions(pointer);
      this.board.pointers[options] = 0n;
    }
  }
}

function tooLate(model: string, deadlineMs: number): InferenceError {
  return new InferenceError('EXECUTOR_DEADLINE', `A step of ${model} took too long and was given up.`, {
    expected: `a step within ${deadlineMs} ms`,
    hint: 'Allow more time (`deadlineMs`), or feed shorter prompts. The caches from before the step are as they were.',
  });
}

function stopped(model: string): InferenceError {
  return new InferenceError('RUN_FAILED', `A step of ${model} was given up.`, { hint: 'Try again.' });
}
