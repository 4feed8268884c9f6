import type { Pointer } from '../session/native/api.js';
import type { OrtLibrary } from '../session/native/library.js';
import type { PartitionManifest } from './manifest.js';
import type { PartSession } from './part-session.js';

/** One part as a thread runs it: addresses, and places on the board. */
export interface PartCall {
  /** Its number among all parts. */
  readonly part: number;
  readonly session: Pointer;
  /** Addresses of `const char*[]` and `OrtValue*[]`. */
  readonly inputNames: Pointer;
  readonly inputs: Pointer;
  readonly inputCount: number;
  readonly outputNames: Pointer;
  readonly outputs: Pointer;
  readonly outputCount: number;
  /** Words that must show the step's number before it may run: parts of other devices that it reads. */
  readonly waits: readonly number[];
  /** The word that shows the step's number when it has run. */
  readonly done: number;
  /** Where its outputs are read: places of 32-bit words among the pointers, two for each pointer. */
  readonly copies: readonly (readonly [from: number, to: number])[];
}

/** What one device does in each step. All of it can be sent to another thread. */
export interface DeviceProgramme {
  readonly device: string;
  readonly calls: readonly PartCall[];
  /** The word that shows the step's number when all is done, or was given up. */
  readonly finished: number;
  /** Place of the 64-bit words with its run options, and with the status of a run that failed. */
  readonly options: number;
  readonly status: number;
}

/** Words lie so far apart that two devices never write to one cache line. */
const SPACING = 16;
/** The number of the step that is to be done. */
export const STEP = 0;
/** The number of the step that was given up. */
export const ABORT = SPACING;
/** Whether times are taken. */
export const TRACE = 2 * SPACING;
/** Whether threads are to end. */
export const STOP = 3 * SPACING;
/** The step that made-up faults count from. */
export const OPENED = 4 * SPACING;
const FIRST_PART = 5;
/** No fault is so far from here. */
const NEVER = -(2 ** 31);
/** Times of a part: it waits, it runs, it has run. */
export const TIMES = 3;

/**
 * The memory through which the devices of a partition work together: words that say how far each is, and the pointers
 * to the values that go from one to the other. An exchange is a write of eight bytes and of a word.
 */
export class Board {
  readonly memory: SharedArrayBuffer;
  readonly control: Int32Array;
  readonly pointers: BigUint64Array;
  /** Milliseconds, `TIMES` for each part. */
  readonly times: Float64Array;
  readonly programmes: readonly DeviceProgramme[];
  /** By part: place of the first pointer of its inputs and outputs. */
  readonly inputsAt: readonly number[];
  readonly outputsAt: readonly number[];

  constructor(library: OrtLibrary, manifest: PartitionManifest, sessions: readonly PartSession[]) {
    const { parts, devices } = manifest;
    const words = SPACING * (FIRST_PART + parts.length + devices.length);
    const inputsAt: number[] = [];
    const outputsAt: number[] = [];
    // Options and status of each device first, each on a line of its own.
    let pointers = 2 * devices.length * (SPACING / 2);
    for (const { inputs, outputs } of sessions) {
      inputsAt.push(pointers);
      outputsAt.push(pointers + inputs.length);
      pointers += Math.ceil((inputs.length + outputs.length) / (SPACING / 2)) * (SPACING / 2);
    }
    this.inputsAt = inputsAt;
    this.outputsAt = outputsAt;
    this.memory = new SharedArrayBuffer(words * 4 + pointers * 8 + parts.length * TIMES * 8);
    this.control = new Int32Array(this.memory, 0, words);
    this.pointers = new BigUint64Array(this.memory, words * 4, pointers);
    this.times = new Float64Array(this.memory, words * 4 + pointers * 8, parts.length * TIMES);
    this.control[OPENED] = NEVER;
    const base = library.ffi.address(this.pointers);
    const address = (place: number) => base + BigInt(8 * place);

    const number = new Map(parts.map(({ name }, i) => [name, i]));
    const done = (part: number) => SPACING * (FIRST_PART + part);
    const calls = parts.map((part, i): PartCall => {
      const session = sessions[i]!;
      const device = part.devices[0];
      const sources = part.inputs.flatMap(({ from }) => (from === undefined ? [] : [number.get(from)!]));
      const elsewhere = sources.filter((source) => parts[source]!.devices[0] !== device);
      return {
        part: i,
        session: session.session,
        inputNames: library.ffi.address(session.inputNames.pointers),
        inputs: address(inputsAt[i]!),
        inputCount: session.inputs.length,
        outputNames: library.ffi.address(session.outputNames.pointers),
        outputs: address(outputsAt[i]!),
        outputCount: session.outputs.length,
        waits: [...new Set(elsewhere)].map(done),
        done: done(i),
        copies: session.outputs.flatMap(({ name }, output) =>
          this.#readers(manifest, sessions, i, name).flatMap((place) => {
            const [from, to] = [2 * (outputsAt[i]! + output), 2 * place];
            return [[from, to] as const, [from + 1, to + 1] as const];
          }),
        ),
      };
    });
    this.programmes = devices.map((device, d) => ({
      device,
      calls: calls.filter(({ part }) => parts[part]!.devices[0] === device),
      finished: SPACING * (FIRST_PART + parts.length + d),
      options: 2 * d * (SPACING / 2),
      status: (2 * d + 1) * (SPACING / 2),
    }));
  }

  /** Places of the inputs that read an output of a part. */
  #readers(
    { parts }: PartitionManifest,
    sessions: readonly PartSession[],
    part: number,
    output: string,
  ): number[] {
    return parts.flatMap(({ inputs }, reader) => {
      if (!inputs.some(({ name, from }) => name === output && from === parts[part]!.name)) return [];
      return [this.inputsAt[reader]! + sessions[reader]!.inputs.findIndex(({ name }) => name === output)];
    });
  }

  /** Takes all values off the board. */
  clear(): void {
    this.pointers.fill(0n, this.inputsAt[0]!);
  }

  /** Gives the step under way up: who waits for another device stops. Runs that go on end by their run options. */
  abort(): void {
    Atomics.store(this.control, ABORT, Atomics.load(this.control, STEP));
    for (const { calls, finished } of this.programmes) {
      for (const { done } of calls) Atomics.notify(this.control, done);
      Atomics.notify(this.control, finished);
    }
  }

  get aborted(): boolean {
    return Atomics.load(this.control, ABORT) === Atomics.load(this.control, STEP);
  }
}
