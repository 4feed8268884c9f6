import type { OrtLibrary } from '../../session/native/library.js';
import type { Board } from '../board.js';

export interface TransportSetup {
  readonly library: OrtLibrary;
  readonly board: Board;
  /** The processor that a device's thread is kept on, by device; `undefined` where it may go anywhere. */
  readonly processors: readonly (number | undefined)[];
  /** Milliseconds that a device looks again and again for what it waits for, before it sleeps. */
  readonly spinMs: number;
  /** Gives the step under way up, on all devices. */
  readonly abort: () => void;
  /** Made up, for tests. */
  readonly fault?: Fault;
}

/** A fault to be made up, for tests: what happens to a device at a step, before its call of that number. */
export interface Fault {
  readonly device: number;
  /** Counted from 1 when the model was opened. */
  readonly step: number;
  readonly call: number;
  /**
   * `die`: its thread ends. `sleepMs`: it stays in native code for so long, and nothing can wake it. `fails`: ONNX Runtime
   * says that in the place of running the call.
   */
  readonly what: 'die' | { readonly sleepMs: number } | { readonly fails: string };
}

/**
 * What makes the devices of a partition do a step together. The board holds what they need; a step is started by its
 * number, and each device shows that number when it is through.
 */
export interface Transport {
  /**
   * Starts what is not running yet.
   *
   * @throws InferenceError `EXECUTOR_DEVICE_LOST` where a thread cannot be started
   */
  ready(): Promise<void>;
  /**
   * Does the step whose pointers lie on the board. Resolves when every device is through, also where a run failed or
   * the step was given up: the board says so.
   *
   * @throws InferenceError `EXECUTOR_DEVICE_LOST` when a device's thread ended; no other works on the step then
   */
  run(): Promise<void>;
  /** Ends the threads, which are idle. */
  dispose(): Promise<void>;
  /**
   * Ends the threads as soon as they come out of native code; none may be used again. Resolves when none of them can
   * touch the board or what it points to any more.
   */
  leave(): Promise<void>;
}
