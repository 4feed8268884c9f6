import { createRequire } from 'node:module';
import { Worker } from 'node:worker_threads';
import { InferenceError } from '../../errors.js';
import { STEP, STOP } from '../board.js';
import { DEVICE_THREAD, type DeviceThreadData, PLACES, RUN_AT } from './device-thread.js';
import type { Transport, TransportSetup } from './types.js';
import { changed } from './wait-async.js';

interface DeviceThread {
  readonly worker: Worker;
  readonly ended: Promise<void>;
  gone: boolean;
  /** What it ended of. */
  reason: string | undefined;
}

/** No step has this number. */
const NOT_READY = -1;

/**
 * A thread for each device, which calls ONNX Runtime by itself and waits for the others by looking at words in shared
 * memory, for a short while awake, then asleep.
 */
export class WorkersTransport implements Transport {
  readonly #setup: TransportSetup;
  #threads: DeviceThread[] = [];
  #disposed = false;

  constructor(setup: TransportSetup) {
    this.#setup = setup;
  }

  async ready(): Promise<void> {
    const { control, programmes } = this.#setup.board;
    const step = Atomics.load(control, STEP);
    await Promise.all(
      programmes.map(async ({ device, finished }, d) => {
        const thread = this.#thread(d);
        await this.#through(d, step, thread);
        if (Atomics.load(control, finished) !== step) throw deviceLost(device, thread.reason);
      }),
    );
  }

  async run(): Promise<void> {
    const { board } = this.#setup;
    const { control, programmes } = board;
    const threads = programmes.map((_, d) => this.#thread(d));
    const step = Atomics.load(control, STEP) + 1;
    Atomics.store(control, STEP, step);
    Atomics.notify(control, STEP);
    const lost = await Promise.all(
      threads.map(async (thread, d) => {
        await this.#through(d, step, thread);
        return Atomics.load(control, programmes[d]!.finished) !== step;
      }),
    );
    const d = lost.indexOf(true);
    if (d !== -1) throw deviceLost(programmes[d]!.device, threads[d]!.reason);
  }

  async dispose(): Promise<void> {
    this.#disposed = true;
    const { control } = this.#setup.board;
    Atomics.store(control, STOP, 1);
    Atomics.add(control, STEP, 1);
    Atomics.notify(control, STEP);
    const threads = this.#threads;
    this.#threads = [];
    for (const { worker } of threads) worker.ref();
    await Promise.all(threads.map(({ ended }) => ended));
  }

  async leave(): Promise<void> {
    this.#disposed = true;
    const threads = this.#threads;
    this.#threads = [];
    await Promise.all(threads.flatMap(({ worker, ended }) => [worker.terminate(), ended]));
  }

  /** The thread of a device; a new one where there is none or where the last one ended. */
  #thread(d: number): DeviceThread {
    const there = this.#threads[d];
    if (there !== undefined && !there.gone) return there;
    if (this.#disposed) throw deviceLost(this.#setup.board.programmes[d]!.device, undefined);
    const { library, board, processors, spinMs, fault, abort } = this.#setup;
    const data: DeviceThreadData = {
      koffi: createRequire(import.meta.url).resolve('koffi'),
      library: library.file,
      api: RUN_AT,
      memory: board.memory,
      pointersAt: board.pointers.byteOffset,
      timesAt: board.times.byteOffset,
      programme: board.programmes[d]!,
      places: PLACES,
      step: Atomics.load(board.control, STEP),
      spinMs,
      processor: processors[d],
      timeOrigin: performance.timeOrigin,
      fault: fault?.device === d ? fault : undefined,
    };
    // Shown by the thread once it is ready.
    Atomics.store(board.control, board.programmes[d]!.finished, NOT_READY);
    const worker = new Worker(DEVICE_THREAD, { eval: true, workerData: data, stdout: false, stderr: false });
    const thread: DeviceThread = {
      worker,
      gone: false,
      reason: undefined,
      ended: new Promise((resolve) => {
        worker.once('error', (error) => {
          thread.reason = String(error);
        });
        worker.once('exit', () => {
          thread.gone = true;
          // What waits for a word of this device wakes up.
          abort();
          resolve();
        });
      }),
    };
    worker.unref();
    this.#threads[d] = thread;
    return thread;
  }

  /** Resolves when a device shows the step's number, or has gone. */
  async #through(d: number, step: number, thread: DeviceThread): Promise<void> {
    const { control, programmes } = this.#setup.board;
    const { finished } = programmes[d]!;
    // Waiting for a word keeps no process alive.
    thread.worker.ref();
    for (;;) {
      const value = Atomics.load(control, finished);
      if (value === step || thread.gone) break;
      await changed(control, finished, value);
    }
    thread.worker.unref();
  }
}

function deviceLost(device: string, found: string | undefined): InferenceError {
  return new InferenceError('EXECUTOR_DEVICE_LOST', `The thread of ${device} ended before its work did.`, {
    expected: 'a thread that lives as long as the model',
    ...(found === undefined ? {} : { found }),
    hint: 'Try again: a new thread is started. The caches from before the step are as they were.',
  });
}
