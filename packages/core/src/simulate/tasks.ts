import { exchangeLinks, exchangeSeconds } from '../latency/exchange.js';
import { deviceOf } from '../latency/profile.js';
import type { Program } from '../latency/program.js';
import { kernelCosts } from '../latency/roofline.js';

/** What the simulator runs: a kernel, a cost of the runtime, or an exchange. */
export interface Task {
  readonly id: number;
  readonly kind: 'kernel' | 'runtime' | 'exchange';
  readonly name: string;
  /** One device, or the parties of an exchange. */
  readonly devices: readonly number[];
  readonly stream: number;
  /** Seconds on the device with nothing beside it. */
  readonly seconds: number;
  /** Share of the device that it uses while it runs: kernels side by side slow down where shares exceed 1. */
  readonly share: number;
  /** Tasks that must have ended. */
  readonly after: readonly number[];
  /** Names of media that it has to itself while it runs. */
  readonly buses: readonly string[];
}

/** A start that a host thread makes, in order. */
export interface Launch {
  readonly task: number;
  readonly seconds: number;
}

export interface TaskGraph {
  readonly tasks: readonly Task[];
  /** By device, what its host thread does; empty where starts are part of the tasks. */
  readonly launches: readonly (readonly Launch[])[];
}

/**
 * A program as tasks. On each device a branch's op follows the one before it in its stream; exchanges and ops of no
 * branch wait for all streams of their devices, and all streams wait for them.
 */
export function taskGraph(program: Program, streams: number): TaskGraph {
  const tasks: Task[] = [];
  const launches: Launch[][] = program.devices.map(() => []);
  const lanes = program.devices.map(() => new Lanes());
  const devices = program.devices.map((id) => deviceOf(program.profile, id));

  const costs = devices.map(kernelCosts);

  const add = (task: Omit<Task, 'id'>): number => {
    tasks.push({ ...task, id: tasks.length });
    return tasks.length - 1;
  };
  const alone = (device: number, stream: number, name: string, seconds: number): void => {
    if (seconds === 0) return;
    const after = lanes[device]!.before(stream);
    lanes[device]!.put(
      stream,
      add({ kind: 'runtime', name, devices: [device], stream, seconds, share: 1, after, buses: [] }),
    );
  };

  for (const op of program.ops) {
    if (op.kind === 'exchange') {
      for (const device of op.devices) {
        lanes[device]!.join();
        if (devices[device]!.launch === 'serial') alone(device, 0, 'launch', devices[device]!.launchSeconds);
      }
      const buses = exchangeLinks(op.exchange, program.profile).flatMap(({ bus }) => bus ?? []);
      const id = add({
        kind: 'exchange',
        name: op.name,
        devices: op.devices,
        stream: 0,
        seconds: exchangeSeconds(op.exchange, program.profile),
        share: 1,
        after: op.devices.flatMap((device) => lanes[device]!.before(0)),
        buses: [...new Set(buses)].sort(),
      });
      for (const device of op.devices) {
        lanes[device]!.barrier(id);
        const { launch, launchSeconds } = devices[device]!;
        if (launch === 'ahead') launches[device]!.push({ task: id, seconds: launchSeconds });
      }
      continue;
    }
    const device = devices[op.device]!;
    const lane = lanes[op.device]!;
    const stream = op.stream % streams;
    if (!op.forks) lane.join();
    if (op.startsRun && device.launch === 'serial') alone(op.device, stream, 'run', device.runSeconds);
    for (const [index, kernel] of op.kernels.entries()) {
      const { launchSeconds, fixedSeconds, workSeconds } = costs[op.device]!(kernel);
      const serial = device.launch === 'serial';
      const seconds = fixedSeconds + workSeconds + (serial ? launchSeconds : 0);
      const id = add({
        kind: 'kernel',
        name: `${op.name} ${kernel.name}`,
        devices: [op.device],
        stream,
        seconds,
        // What a kernel takes however little it does leaves the device to others; threads of a CPU do not.
        share: serial || seconds === 0 ? 1 : workSeconds / seconds,
        after: lane.before(stream),
        buses: [],
      });
      lane.put(stream, id);
      const run = index === 0 && op.startsRun ? device.runSeconds : 0;
      if (!serial) launches[op.device]!.push({ task: id, seconds: launchSeconds + run });
    }
    if (!op.forks) lane.join();
  }
  return { tasks, launches };
}

/** The last tasks of a device's streams. */
class Lanes {
  /** What all streams wait for. */
  private base: number[] = [];
  private readonly last = new Map<number, number>();

  /** What a task of a stream waits for. */
  before(stream: number): readonly number[] {
    const own = this.last.get(stream);
    return own === undefined ? this.base : [own];
  }

  put(stream: number, task: number): void {
    this.last.set(stream, task);
  }

  /** All streams go on behind all of them. */
  join(): void {
    if (this.last.size === 0) return;
    this.base = [...this.last.values()];
    this.last.clear();
  }

  barrier(task: number): void {
    this.last.clear();
    this.base = [task];
  }
}
