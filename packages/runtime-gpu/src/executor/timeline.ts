import { type Board, TIMES } from './board.js';
import type { PartitionManifest } from './manifest.js';

/** An event of the trace format that Chrome's and Perfetto's viewers read. Times are microseconds. */
export interface TraceEvent {
  readonly name: string;
  readonly cat?: string;
  readonly ph: 'X' | 'M';
  readonly ts?: number;
  readonly dur?: number;
  readonly pid: number;
  readonly tid: number;
  readonly args?: Readonly<Record<string, string | number>>;
}

export interface ChromeTrace {
  readonly traceEvents: readonly TraceEvent[];
  readonly displayTimeUnit: 'ms';
}

/** One exchange: a part that had to wait for another device's. */
export interface ExchangeTime {
  readonly part: string;
  /** Microseconds from when the last of what it needs was there, its own device free, until it ran. */
  readonly overheadUs: number;
  /** Microseconds that its device waited in all: the overhead, and how much later the other was. */
  readonly waitedUs: number;
}

/** Steps that are remembered; the oldest go first. */
const MOST_STEPS = 512;

/** When each part waited and ran. */
export class Timeline {
  readonly #manifest: PartitionManifest;
  readonly #steps: Float64Array[] = [];

  constructor(manifest: PartitionManifest) {
    this.#manifest = manifest;
  }

  add({ times }: Board): void {
    if (this.#steps.length === MOST_STEPS) this.#steps.shift();
    this.#steps.push(times.slice());
  }

  clear(): void {
    this.#steps.length = 0;
  }

  /** For `chrome://tracing` and Perfetto: a row for each device. */
  trace(): ChromeTrace {
    const { devices, parts } = this.#manifest;
    const events: TraceEvent[] = devices.map((device, tid) => ({
      name: 'thread_name',
      ph: 'M',
      pid: 1,
      tid,
      args: { name: device },
    }));
    const start =
      this.#steps[0]?.reduce((least, time) => Math.min(least, time), Number.POSITIVE_INFINITY) ?? 0;
    for (const [step, times] of this.#steps.entries()) {
      for (const [i, { name, holds, devices: on }] of parts.entries()) {
        const [waits, runs, ends] = timesOf(times, i);
        const common = { ph: 'X', pid: 1, tid: devices.indexOf(on[0]!) } as const;
        const span = (from: number, to: number) => ({ ts: (from - start) * 1000, dur: (to - from) * 1000 });
        if (runs - waits > 0.001) events.push({ name: 'wait', cat: 'wait', ...common, ...span(waits, runs) });
        events.push({ name, cat: 'run', ...common, ...span(runs, ends), args: { step, holds } });
      }
    }
    return { traceEvents: events, displayTimeUnit: 'ms' };
  }

  /** Every exchange of the steps that are remembered. */
  exchanges(): ExchangeTime[] {
    const { parts } = this.#manifest;
    const number = new Map(parts.map(({ name }, i) => [name, i]));
    return this.#steps.flatMap((times) =>
      parts.flatMap(({ name, inputs, devices }, i): ExchangeTime[] => {
        const sources = [
          ...new Set(inputs.flatMap(({ from }) => (from === undefined ? [] : [number.get(from)!]))),
        ];
        if (sources.every((source) => parts[source]!.devices[0] === devices[0])) return [];
        const [waits, runs] = timesOf(times, i);
        const ready = Math.max(waits, ...sources.map((source) => timesOf(times, source)[2]));
        return [{ part: name, overheadUs: (runs - ready) * 1000, waitedUs: (runs - waits) * 1000 }];
      }),
    );
  }
}

function timesOf(times: Float64Array, part: number): [waits: number, runs: number, ends: number] {
  const at = TIMES * part;
  return [times[at]!, times[at + 1]!, times[at + 2]!];
}
