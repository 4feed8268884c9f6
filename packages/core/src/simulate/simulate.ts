import { UsageError } from '../errors.js';
import type { Program } from '../latency/program.js';
import { type Task, taskGraph } from './tasks.js';

/** One thing that happened, in seconds from the start of the pass. */
export interface Span {
  readonly name: string;
  readonly kind: Task['kind'] | 'launch';
  /** Which device, by place in the program's list; an exchange has a span on each of its devices. */
  readonly device: number;
  /** Stream of a kernel; undefined for what the host thread does. */
  readonly stream: number | undefined;
  readonly start: number;
  readonly end: number;
}

export interface SimulateOptions {
  /** Streams of each device that branches of a group may run in side by side (default 1). */
  readonly streams?: number;
}

export interface Simulation {
  readonly seconds: number;
  /** By start, then device; at equal times in the order of the program. */
  readonly spans: readonly Span[];
  readonly devices: readonly {
    readonly id: string;
    /** Seconds in which at least one kernel runs. */
    readonly busySeconds: number;
    /** Seconds in exchanges. */
    readonly exchangeSeconds: number;
  }[];
}

/**
 * Runs a program event by event: host threads that start kernels one after the other, streams that run them in order,
 * exchanges that wait for their last party and then for their bus. Kernels side by side on one device share it: while
 * the shares that they can use add up to more than 1, all are slowed down alike.
 *
 * With one stream and no shared bus the result is `programLatency`'s.
 *
 * @throws UsageError `SIMULATE_STREAMS`
 */
export function simulate(program: Program, { streams = 1 }: SimulateOptions = {}): Simulation {
  if (!Number.isSafeInteger(streams) || streams < 1) {
    throw new UsageError('SIMULATE_STREAMS', 'This is no number of streams.', {
      expected: 'a whole number of at least 1',
      found: String(streams),
    });
  }
  return new Run(program, streams).result();
}

/** A kernel that runs: what is left of it, in seconds with nothing beside it. */
interface Running {
  readonly task: Task;
  readonly start: number;
  left: number;
}

class Run {
  private now = 0;
  private readonly spans: Span[] = [];
  private readonly tasks: readonly Task[];
  /** Tasks and launches that each task still waits for. */
  private readonly missing: number[];
  private readonly followers: number[][];
  private readonly running: Map<number, Running>[];
  private readonly exchanging = new Map<number, { readonly start: number; readonly end: number }>();
  private readonly waitingForBus: number[] = [];
  private readonly busyBuses = new Set<string>();
  /** Each host thread's next launch, and from when until when it makes it. */
  private readonly hosts: { next: number; since: number; until: number }[];
  private readonly launches: ReturnType<typeof taskGraph>['launches'];

  constructor(
    private readonly program: Program,
    streams: number,
  ) {
    const { tasks, launches } = taskGraph(program, streams);
    this.tasks = tasks;
    this.launches = launches;
    this.followers = tasks.map(() => []);
    this.missing = tasks.map(({ after }) => after.length);
    for (const { id, after } of tasks) for (const one of after) this.followers[one]!.push(id);
    for (const { task } of launches.flat()) this.missing[task]!++;
    this.running = program.devices.map(() => new Map());
    this.hosts = launches.map((list) => ({
      next: 0,
      since: 0,
      until: list[0]?.seconds ?? Number.POSITIVE_INFINITY,
    }));
  }

  result(): Simulation {
    for (const { id } of this.tasks) if (this.missing[id] === 0) this.begin(id);
    for (;;) {
      const next = this.nextTime();
      if (next === Number.POSITIVE_INFINITY) break;
      this.advance(next);
      this.endKernels();
      this.endExchanges();
      this.endLaunches();
    }
    const order = (a: Span, b: Span) => a.start - b.start || a.device - b.device;
    return {
      seconds: this.spans.reduce(
        (last, { kind, end }) => (kind === 'launch' ? last : Math.max(last, end)),
        0,
      ),
      spans: this.spans.toSorted(order),
      devices: this.program.devices.map((id, device) => ({
        id,
        busySeconds: covered(this.spans.filter((one) => one.device === device && one.kind === 'kernel')),
        exchangeSeconds: covered(
          this.spans.filter((one) => one.device === device && one.kind === 'exchange'),
        ),
      })),
    };
  }

  private nextTime(): number {
    let next = Number.POSITIVE_INFINITY;
    for (const kernels of this.running) {
      const slow = slowdown(kernels);
      for (const { left } of kernels.values()) next = Math.min(next, this.now + left * slow);
    }
    for (const { end } of this.exchanging.values()) next = Math.min(next, end);
    for (const { until } of this.hosts) next = Math.min(next, until);
    return next;
  }

  private advance(to: number): void {
    for (const kernels of this.running) {
      if (kernels.size === 0) continue;
      const slow = slowdown(kernels);
      for (const one of kernels.values()) {
        // The one that ends now ends exactly, whatever rounding leaves of it.
        one.left = this.now + one.left * slow <= to ? 0 : one.left - (to - this.now) / slow;
      }
    }
    this.now = to;
  }

  private endKernels(): void {
    for (const kernels of this.running) {
      for (const [id, { task, start, left }] of kernels) {
        if (left > 0) continue;
        kernels.delete(id);
        this.done(task, start);
      }
    }
  }

  private endExchanges(): void {
    for (const [id, { start, end }] of this.exchanging) {
      if (end > this.now) continue;
      this.exchanging.delete(id);
      const task = this.tasks[id]!;
      for (const bus of task.buses) this.busyBuses.delete(bus);
      this.done(task, start);
    }
    for (const id of this.waitingForBus.splice(0)) this.begin(id);
  }

  private endLaunches(): void {
    for (const [device, host] of this.hosts.entries()) {
      while (host.until <= this.now) {
        const list = this.launches[device]!;
        const { task, seconds } = list[host.next]!;
        if (seconds > 0) {
          const { name } = this.tasks[task]!;
          const { since: start, until: end } = host;
          this.spans.push({ name, kind: 'launch', device, stream: undefined, start, end });
        }
        host.next++;
        host.since = host.until;
        host.until += list[host.next]?.seconds ?? Number.POSITIVE_INFINITY;
        this.ready(task);
      }
    }
  }

  private done(task: Task, start: number): void {
    const { name, kind, stream } = task;
    for (const device of task.devices) {
      this.spans.push({ name, kind, device, stream, start, end: this.now });
    }
    for (const follower of this.followers[task.id]!) this.ready(follower);
  }

  private ready(id: number): void {
    this.missing[id]!--;
    if (this.missing[id] === 0) this.begin(id);
  }

  private begin(id: number): void {
    const task = this.tasks[id]!;
    if (task.kind !== 'exchange') {
      this.running[task.devices[0]!]!.set(id, { task, start: this.now, left: task.seconds });
      return;
    }
    if (task.buses.some((bus) => this.busyBuses.has(bus))) {
      this.waitingForBus.push(id);
      return;
    }
    for (const bus of task.buses) this.busyBuses.add(bus);
    this.exchanging.set(id, { start: this.now, end: this.now + task.seconds });
  }
}

/** How much longer kernels side by side take. */
function slowdown(kernels: ReadonlyMap<number, Running>): number {
  if (kernels.size < 2) return 1;
  let sum = 0;
  for (const { task } of kernels.values()) sum += task.share;
  return Math.max(1, sum);
}

/** Seconds that at least one of the spans covers. */
function covered(spans: readonly Span[]): number {
  let [sum, until] = [0, 0];
  for (const { start, end } of spans.toSorted((a, b) => a.start - b.start)) {
    sum += Math.max(0, end - Math.max(start, until));
    until = Math.max(until, end);
  }
  return sum;
}
