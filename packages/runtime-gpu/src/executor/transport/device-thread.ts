import { ABORT, type DeviceProgramme, OPENED, STEP, STOP, TIMES, TRACE } from '../board.js';
import type { Fault } from './types.js';

/** What the thread of a device is started with. */
export interface DeviceThreadData {
  /** Path of koffi. */
  readonly koffi: string;
  /** Path of ONNX Runtime's library, and where its `Run` is found. */
  readonly library: string;
  readonly api: typeof RUN_AT;
  readonly memory: SharedArrayBuffer;
  /** Bytes at which the pointers and the times begin. */
  readonly pointersAt: number;
  readonly timesAt: number;
  readonly programme: DeviceProgramme;
  readonly places: typeof PLACES;
  /** The step that was done last. */
  readonly step: number;
  readonly spinMs: number;
  readonly processor: number | undefined;
  /** `performance.timeOrigin` of the thread that reads the times. */
  readonly timeOrigin: number;
  readonly fault: Fault | undefined;
}

/** Any version of the C API will do: places in its table never change. */
export const RUN_AT = { version: 20, place: 9 } as const;

/** The words that a thread knows by themselves. */
export const PLACES = { STEP, ABORT, TRACE, STOP, OPENED, TIMES } as const;

/**
 * What the thread of a device does: it waits for a step, runs the device's parts one by one as soon as what they read is
 * there, and shows how far it is. Everything is done by pointers, in calls that do not return before the work is done,
 * so that nothing but two words of memory stands between a branch that has ended and the one that reads it.
 *
 * A script and no module, so that it needs no file of its own wherever this package is bundled.
 */
export const DEVICE_THREAD = `
'use strict';
const { workerData: data } = require('node:worker_threads');
const koffi = require(data.koffi);
const { STEP, ABORT, TRACE, STOP, OPENED, TIMES } = data.places;
const control = new Int32Array(data.memory, 0, data.pointersAt / 4);
const words = new Uint32Array(data.memory, data.pointersAt, (data.timesAt - data.pointersAt) / 4);
const pointers = new BigUint64Array(data.memory, data.pointersAt, words.length / 2);
const times = new Float64Array(data.memory, data.timesAt);
const { calls, finished, options, status } = data.programme;
const P = 'void *';
const base = koffi.load(data.library).func('OrtGetApiBase', P, [])();
const [getApi] = koffi.decode(base, P, 1);
const api = koffi.decode(getApi, koffi.proto(P, ['uint32']))(data.api.version);
const run = koffi.decode(
  koffi.decode(api, P, data.api.place + 1)[data.api.place],
  koffi.proto(P, [P, P, P, P, 'size_t', P, 'size_t', P]),
);
const now = () => performance.now() + (performance.timeOrigin - data.timeOrigin);

if (data.processor !== undefined) {
  try {
    const set = koffi.load('libc.so.6').func('int sched_setaffinity(int, size_t, void *)');
    const mask = new Uint8Array(128);
    mask[data.processor >> 3] = 1 << (data.processor & 7);
    set(0, mask.length, mask);
  } catch {}
}

/** Waits until a word is no longer (or, with \`until\`, is) a value; false when the step was given up. */
function changes(word, from, until, step, spinMs) {
  let value = Atomics.load(control, word);
  const met = () => (until === undefined ? value !== from : value === until);
  if (met()) return true;
  const end = performance.now() + spinMs;
  do {
    for (let i = 0; i < 64; i++) {
      value = Atomics.load(control, word);
      if (met()) return true;
    }
    if (step !== undefined && Atomics.load(control, ABORT) === step) return false;
  } while (performance.now() < end);
  for (;;) {
    if (step !== undefined && Atomics.load(control, ABORT) === step) return false;
    Atomics.wait(control, word, value, 1000);
    value = Atomics.load(control, word);
    if (met()) return true;
  }
}

function fault(step, call) {
  const { fault } = data;
  if (fault === undefined || fault.step !== step - control[OPENED] || fault.call !== call) return null;
  if (fault.what === 'die') throw new Error('made up');
  if (fault.what.fails !== undefined) {
    const createStatus = koffi.decode(koffi.decode(api, P, 1)[0], koffi.proto(P, ['int', 'str']));
    return createStatus(1, fault.what.fails);
  }
  koffi.load('libc.so.6').func('int usleep(uint)')(fault.what.sleepMs * 1000);
  return null;
}

function work(step) {
  const options64 = pointers[options];
  const timed = control[TRACE] === 1;
  for (let i = 0; i < calls.length; i++) {
    const call = calls[i];
    if (timed) times[TIMES * call.part] = now();
    for (const word of call.waits) if (!changes(word, undefined, step, step, data.spinMs)) return;
    if (timed) times[TIMES * call.part + 1] = now();
    const madeUp = fault(step, i);
    // The last look before the call: what a step works on may be gone once it was given up.
    if (Atomics.load(control, ABORT) === step) return;
    const failed = madeUp ?? run(
      call.session,
      options64,
      call.inputNames,
      call.inputs,
      call.inputCount,
      call.outputNames,
      call.outputCount,
      call.outputs,
    );
    if (timed) times[TIMES * call.part + 2] = now();
    if (failed !== null) {
      pointers[status] = failed;
      Atomics.store(control, ABORT, step);
      return;
    }
    for (const [from, to] of call.copies) words[to] = words[from];
    Atomics.store(control, call.done, step);
    Atomics.notify(control, call.done);
  }
}

Atomics.store(control, finished, data.step);
Atomics.notify(control, finished);
for (let step = data.step; ; ) {
  // Asleep at once: between two steps the main thread wants a processor.
  changes(STEP, step, undefined, undefined, 0);
  if (Atomics.load(control, STOP) === 1) break;
  step = Atomics.load(control, STEP);
  work(step);
  // Whoever waits for a part that was not run looks whether the step was given up.
  if (Atomics.load(control, ABORT) === step) for (const { done } of calls) Atomics.notify(control, done);
  Atomics.store(control, finished, step);
  Atomics.notify(control, finished);
}
`;
