import { callAsync } from '../../session/native/library.js';
import type { DeviceProgramme, PartCall } from '../board.js';
import { ABORT, STEP, TIMES, TRACE } from '../board.js';
import type { Transport, TransportSetup } from './types.js';

/**
 * Native calls off the main thread, which starts each when what it reads is there. No threads of its own; the event loop
 * stands between any two calls.
 */
export class AsyncTransport implements Transport {
  readonly #setup: TransportSetup;
  #running: Promise<unknown> = Promise.resolve();

  constructor(setup: TransportSetup) {
    this.#setup = setup;
  }

  async ready(): Promise<void> {}

  async run(): Promise<void> {
    const { control, programmes } = this.#setup.board;
    const step = Atomics.load(control, STEP) + 1;
    Atomics.store(control, STEP, step);
    const through = new Map<number, () => void>();
    const waiting = new Map<number, Promise<void>>();
    for (const { calls } of programmes) {
      for (const { done } of calls) waiting.set(done, new Promise((resolve) => through.set(done, resolve)));
    }
    const run = Promise.all(
      programmes.map(async (programme) => {
        try {
          for (const call of programme.calls) {
            if (!(await this.#call(programme, call, step, waiting))) return;
            through.get(call.done)!();
          }
        } finally {
          // Whoever waits for a part that will not be run sees that the step was given up.
          for (const { done } of programme.calls) through.get(done)!();
        }
      }),
    );
    this.#running = run.catch(() => undefined);
    await run;
  }

  async dispose(): Promise<void> {
    await this.#running;
  }

  leave(): Promise<void> {
    return this.dispose();
  }

  /** @returns whether the device may go on */
  async #call(
    programme: DeviceProgramme,
    call: PartCall,
    step: number,
    waiting: ReadonlyMap<number, Promise<void>>,
  ): Promise<boolean> {
    const { library, board } = this.#setup;
    const { control, pointers, times } = board;
    const timed = Atomics.load(control, TRACE) === 1;
    if (timed) times[TIMES * call.part] = performance.now();
    for (const done of call.waits) await waiting.get(done);
    if (Atomics.load(control, ABORT) === step) return false;
    if (timed) times[TIMES * call.part + 1] = performance.now();
    const status = await callAsync(
      library.api.Run,
      call.session,
      pointers[programme.options]!,
      call.inputNames,
      call.inputs,
      call.inputCount,
      call.outputNames,
      call.outputCount,
      call.outputs,
    );
    if (timed) times[TIMES * call.part + 2] = performance.now();
    if (status !== null) {
      pointers[programme.status] = status;
      this.#setup.abort();
      return false;
    }
    const words = new Uint32Array(pointers.buffer, pointers.byteOffset, 2 * pointers.length);
    for (const [from, to] of call.copies) words[to] = words[from]!;
    return Atomics.load(control, ABORT) !== step;
  }
}
