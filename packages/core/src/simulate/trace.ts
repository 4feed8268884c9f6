import type { Program } from '../latency/program.js';
import type { Simulation } from './simulate.js';

/** An event of Chrome's trace format ("Trace Event Format"): `X` is a span, `M` a name. Times in microseconds. */
export interface TraceEvent {
  readonly name: string;
  readonly cat?: string;
  readonly ph: 'X' | 'M';
  readonly pid: number;
  readonly tid: number;
  readonly ts?: number;
  readonly dur?: number;
  readonly args?: Readonly<Record<string, unknown>>;
}

export interface ChromeTrace {
  readonly displayTimeUnit: 'ms';
  readonly traceEvents: readonly TraceEvent[];
  readonly otherData: Readonly<Record<string, string>>;
}

const HOST = 0;
const EXCHANGE = 1;
const FIRST_STREAM = 2;

/**
 * A simulation as a trace that chrome://tracing and Perfetto open: a process a device, with its host thread, its
 * exchanges and its streams.
 */
export function chromeTrace(program: Program, { spans }: Simulation): ChromeTrace {
  const lanes = new Map<string, TraceEvent>();
  const name = (pid: number, tid: number, text: string): void => {
    lanes.set(`${pid} ${tid}`, { name: 'thread_name', ph: 'M', pid, tid, args: { name: text } });
  };
  const events = spans.map((span): TraceEvent => {
    const [tid, lane] =
      span.kind === 'exchange'
        ? [EXCHANGE, 'exchanges']
        : span.stream === undefined
          ? [HOST, 'host']
          : [FIRST_STREAM + span.stream, `stream ${span.stream}`];
    name(span.device, tid, lane);
    return {
      name: span.name,
      cat: span.kind,
      ph: 'X',
      pid: span.device,
      tid,
      ts: span.start * 1e6,
      dur: (span.end - span.start) * 1e6,
    };
  });
  const processes = program.devices.map((id, pid): TraceEvent => {
    const device = program.profile.devices.find((one) => one.id === id);
    const text = device?.name === undefined ? id : `${id}: ${device.name}`;
    return { name: 'process_name', ph: 'M', pid, tid: HOST, args: { name: text } };
  });
  return {
    displayTimeUnit: 'ms',
    traceEvents: [...processes, ...lanes.values(), ...events],
    otherData: { machine: program.profile.name, simulated: 'true' },
  };
}
