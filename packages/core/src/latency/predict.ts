import type { Plan } from '../plan/types.js';
import { exchangeSeconds } from './exchange.js';
import type { Pass } from './kernels.js';
import type { Placement } from './placement.js';
import { type DeviceProfile, deviceOf, type MachineProfile } from './profile.js';
import { buildProgram, type ExchangeOp, type KernelsOp, type Program } from './program.js';
import { kernelCosts } from './roofline.js';
import type { ModelShape } from './shape.js';

/** What the time of a pass goes to, on the device that is done last; seconds that add up to the pass. */
export interface LatencyParts {
  /** Kernels that the arithmetic decides. */
  readonly compute: number;
  /** Kernels that the memory decides. */
  readonly memory: number;
  /** Starting kernels and runs, and what each kernel takes however little it does. */
  readonly launch: number;
  /** Exchanges themselves. */
  readonly exchange: number;
  /** Waiting for other devices before an exchange: for the slowest branch. */
  readonly waiting: number;
}

/** The latency of one pass. */
export interface PassLatency {
  readonly seconds: number;
  readonly parts: LatencyParts;
  readonly devices: readonly {
    readonly id: string;
    /** Seconds in kernels. */
    readonly busySeconds: number;
    /** Bytes of weights and cache. */
    readonly memoryBytes: number;
    /** Whether that is no more than the device has. */
    readonly fits: boolean;
  }[];
  /** The team of each branch, by group. */
  readonly assignment: readonly (readonly number[])[];
}

export interface PredictOptions {
  readonly plan: Plan;
  readonly shape: ModelShape;
  readonly placement: Placement;
  readonly profile: MachineProfile;
}

/** A prefill, and one decoding step behind it. */
export interface Latency {
  readonly prefill: PassLatency;
  readonly decode: PassLatency;
}

/**
 * Predicts how long a plan takes for a prompt and for a token after it, with what the time is made of. Plans are to
 * be chosen by this and not by operations: what saves operations need not save time (LASNet, arXiv 2210.06223;
 * LAUDNet, arXiv 2308.15949).
 *
 * @param tokens of the prompt (default 128); the decoding step has them in its cache
 * @throws PlanError `PLAN_LAYER_COUNT`; UsageError `PLACEMENT_INVALID`, `PROFILE_NO_DEVICE`, `PROFILE_NO_LINK`,
 *   `PROFILE_NO_RATE`
 */
export function predictLatency({
  promptTokens = 128,
  ...options
}: PredictOptions & { readonly promptTokens?: number }): Latency {
  return {
    prefill: predictPass(options, { tokens: promptTokens, context: 0 }),
    decode: predictPass(options, { tokens: 1, context: promptTokens }),
  };
}

/** Predicts one pass; see {@link predictLatency}. */
export function predictPass(options: PredictOptions, pass: Pass): PassLatency {
  return programLatency(buildProgram({ ...options, pass }));
}

/**
 * The latency of a program whose devices have one stream each and whose links carry exchanges side by side: then every
 * time follows from those before it, without a queue of events. With several streams or a shared bus, `simulate` it.
 */
export function programLatency(program: Program): PassLatency {
  const clocks = program.devices.map((id) => new Clock(deviceOf(program.profile, id)));
  for (const op of program.ops) {
    if (op.kind === 'kernels') clocks[op.device]!.run(op);
    else meet(op, clocks, program.profile);
  }
  const last = clocks.reduce((a, b) => (b.now > a.now ? b : a));
  return {
    seconds: last.now,
    parts: last.parts,
    devices: clocks.map((clock, i) => ({
      id: clock.device.id,
      busySeconds: clock.busy,
      memoryBytes: program.memoryBytes[i]!,
      fits: program.memoryBytes[i]! <= clock.device.memoryBytes,
    })),
    assignment: program.assignment,
  };
}

function meet(op: ExchangeOp, clocks: readonly Clock[], profile: MachineProfile): void {
  const seconds = exchangeSeconds(op.exchange, profile);
  const parties = op.devices.map((device) => clocks[device]!);
  for (const clock of parties) clock.arrive();
  const start = Math.max(...parties.map((clock) => clock.now));
  for (const clock of parties) clock.exchange(start, seconds);
}

/** A device's time, and that of the host thread that starts its kernels. */
class Clock {
  now = 0;
  busy = 0;
  readonly parts = { compute: 0, memory: 0, launch: 0, exchange: 0, waiting: 0 };
  private host = 0;
  private readonly cost: ReturnType<typeof kernelCosts>;

  constructor(readonly device: DeviceProfile) {
    this.cost = kernelCosts(device);
  }

  run({ startsRun, kernels }: KernelsOp): void {
    if (startsRun) this.launch(this.device.runSeconds);
    for (const kernel of kernels) {
      const { launchSeconds, fixedSeconds, workSeconds, bound } = this.cost(kernel);
      this.launch(launchSeconds);
      this.waitForHost();
      this.now += fixedSeconds + workSeconds;
      this.busy += fixedSeconds + workSeconds;
      this.parts.launch += fixedSeconds;
      this.parts[bound] += workSeconds;
    }
  }

  /** The exchange is started, too. */
  arrive(): void {
    this.launch(this.device.launchSeconds);
    this.waitForHost();
  }

  exchange(start: number, seconds: number): void {
    this.parts.waiting += start - this.now;
    this.parts.exchange += seconds;
    this.now = start + seconds;
  }

  private launch(seconds: number): void {
    if (this.device.launch === 'ahead') {
      this.host += seconds;
      return;
    }
    this.now += seconds;
    this.parts.launch += seconds;
  }

  private waitForHost(): void {
    if (this.host <= this.now) return;
    this.parts.launch += this.host - this.now;
    this.now = this.host;
  }
}
