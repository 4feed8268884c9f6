import { InferenceError } from '../errors.js';
import { checkFeed, checkFetches, checkNames } from '../session/checks.js';
import { adoptTensor } from '../session/native/adopted-tensor.js';
import { alignedZeros } from '../session/native/aligned-tensor.js';
import type { BindableSession } from '../session/native/bindable-session.js';
import { Binding, type OutputTarget } from '../session/native/binding.js';
import type { PlainType } from '../session/native/element-types.js';
import type { OrtLibrary } from '../session/native/library.js';
import { nameList } from '../session/native/name-list.js';
import { ResidentTensor } from '../session/native/resident-tensor.js';
import type { RunOptions, ValueInfo } from '../session/types.js';
import type { TensorValue } from '../tensor/types.js';
import { Board, OPENED, STEP, TRACE } from './board.js';
import { ExchangeMemory } from './exchange-memory.js';
import type { PartitionManifest } from './manifest.js';
import { MemoryLimit } from './memory-limit.js';
import type { PartSession } from './part-session.js';
import { Team, type TeamSetup } from './team.js';
import { Timeline } from './timeline.js';

export interface PartitionedSessionOptions extends Omit<TeamSetup, 'library'> {
  readonly trace: boolean;
}

/** What steps may take; without end where absent. */
export interface Limits {
  /** Milliseconds of a step. */
  readonly deadlineMs?: number | undefined;
  /** Bytes of caches, together. */
  readonly cacheBytes?: number | undefined;
}

type Feeds = Readonly<Record<string, TensorValue | ResidentTensor>>;
type Into = Readonly<Record<string, ResidentTensor>>;

/**
 * A partitioned model as one session: the parts on all devices, fed and read as the graph that they were cut from. Runs
 * go one after the other, in the order in which they are asked for.
 */
export class PartitionedSession implements BindableSession {
  readonly binding = 'native';
  readonly model: string;
  readonly inputs: readonly ValueInfo[];
  readonly outputs: readonly ValueInfo[];
  /** What each part did when, where `trace` asked for it. */
  readonly timeline: Timeline;
  readonly #library: OrtLibrary;
  readonly #manifest: PartitionManifest;
  readonly #sessions: readonly PartSession[];
  readonly #options: PartitionedSessionOptions;
  readonly #exchange: ExchangeMemory;
  /** By input and output of the whole graph: what place it has in which part. */
  readonly #readers: readonly (readonly PartValue[])[];
  readonly #makers: ReadonlyMap<string, PartValue>;
  /** Milliseconds that a step may take; without end when absent. */
  #deadlineMs: number | undefined;
  #memory: MemoryLimit | undefined;
  #team: Team;
  #queue: Promise<unknown> = Promise.resolve();
  #disposed: Promise<void> | undefined;
  /** What threads that were left behind may still touch, until they have ended. */
  readonly #leftBehind = new Map<Promise<void>, ReadonlySet<unknown>>();

  /** Takes the parts' sessions over. @param sessions one for each part of the manifest, in its order */
  constructor(
    library: OrtLibrary,
    manifest: PartitionManifest,
    sessions: readonly PartSession[],
    options: PartitionedSessionOptions,
  ) {
    this.model = options.model;
    this.#library = library;
    this.#manifest = manifest;
    this.#sessions = sessions;
    this.#options = options;
    // An input that no part reads is none.
    this.#readers = manifest.inputs
      .map((name) =>
        places(sessions, 'inputs', name).filter(({ part }) =>
          manifest.parts[part]!.inputs.some((input) => input.name === name && input.from === undefined),
        ),
      )
      .filter((readers) => readers.length > 0);
    this.#makers = new Map(
      manifest.outputs.map((name) => {
        const part = manifest.parts.findIndex(({ outputs }) => outputs.includes(name));
        return [name, { part, index: sessions[part]!.outputs.findIndex((output) => output.name === name) }];
      }),
    );
    this.inputs = this.#readers.map((readers) => inputOf(sessions, readers[0]!));
    this.outputs = [...this.#makers.values()].map(({ part, index }) => sessions[part]!.outputs[index]!);
    const ids = this.inputs.find(({ name }) => name === 'input_ids');
    this.#exchange = new ExchangeMemory(library, manifest, sessions, ids?.shape ?? []);
    this.timeline = new Timeline(manifest);
    this.#team = this.#makeTeam();
  }

  /** Starts the threads. @throws InferenceError `EXECUTOR_DEVICE_LOST` */
  ready(): Promise<void> {
    return this.#team.ready();
  }

  /** From here on times are kept, limits hold, and made-up faults are counted. */
  begin({ deadlineMs, cacheBytes }: Limits): void {
    this.timeline.clear();
    this.#deadlineMs = deadlineMs;
    this.#memory = cacheBytes === undefined ? undefined : new MemoryLimit(this.model, cacheBytes);
    const { control } = this.#team.board;
    control[OPENED] = Atomics.load(control, STEP);
  }

  run(
    feeds: Readonly<Record<string, TensorValue>>,
    fetches: readonly string[] = this.outputs.map((output) => output.name),
    options: RunOptions = {},
  ): Promise<Record<string, TensorValue>> {
    return this.execute(feeds, Object.fromEntries(fetches.map((name) => [name, 'tensor' as const])), options);
  }

  /** As `NativeSession.execute`. */
  async execute(
    feeds: Feeds,
    outputs: Readonly<Record<string, OutputTarget>>,
    options: RunOptions = {},
  ): Promise<Record<string, TensorValue>> {
    return this.runBound(this.bind({}, outputs), feeds, options);
  }

  /** As `NativeSession.bind`. */
  bind(feeds: Into, outputs: Readonly<Record<string, OutputTarget>>): Binding {
    const fetches = Object.keys(outputs);
    checkFetches(this.outputs, fetches);
    return new Binding(this.inputs, feeds, outputs, nameList(this.#library, fetches));
  }

  /**
   * As `NativeSession.runBound`.
   *
   * @throws InferenceError `EXECUTOR_DEADLINE`, `EXECUTOR_DEVICE_LOST`, `EXECUTOR_MEMORY_HELD` besides
   */
  runBound(
    binding: Binding,
    feeds: Feeds,
    options: RunOptions = {},
    into: Into = {},
  ): Promise<Record<string, TensorValue>> {
    if (this.#disposed !== undefined) return Promise.reject(disposed(this.model));
    const turn = this.#queue.then(() => this.#step(binding, feeds, options.signal, into));
    this.#queue = turn.catch(() => undefined);
    return turn;
  }

  zeros(type: PlainType, dims: readonly number[]): TensorValue {
    return alignedZeros(this.#library, type, dims);
  }

  /** As `NativeSession.resident`. @throws InferenceError `EXECUTOR_OUT_OF_MEMORY` */
  resident(tensor: TensorValue): ResidentTensor {
    const make = () => ResidentTensor.over(this.#library, tensor);
    return this.#memory === undefined ? make() : this.#memory.admit(tensor, make);
  }

  /** Ends the threads and frees the parts, once the runs that were asked for are through. */
  dispose(): Promise<void> {
    this.#disposed ??= this.#queue.then(async () => {
      await this.#team.dispose();
      this.#exchange.dispose();
      const release = () => {
        for (const session of this.#sessions) session.release();
      };
      // Threads that no longer answer keep what they work on; it goes when they end.
      if (this.#leftBehind.size === 0) release();
      else void Promise.all(this.#leftBehind.keys()).then(release);
    });
    return this.#disposed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  async #step(
    binding: Binding,
    feeds: Feeds,
    signal: AbortSignal | undefined,
    into: Into,
  ): Promise<Record<string, TensorValue>> {
    signal?.throwIfAborted();
    checkNames(binding.open, feeds);
    const bound = new Set<unknown>([...binding.bound, ...Object.values(into)]);
    this.#refuseHeld(bound);
    const team = this.#team;
    await team.ready();
    const { board } = team;
    const temporary: ResidentTensor[] = [];
    const dispose = () => {
      for (const tensor of temporary) tensor.dispose();
    };
    try {
      board.clear();
      const sizes = this.#putInputs(board, binding, feeds, temporary);
      const given = this.#putOutputs(board, binding, into, sizes);
      board.control[TRACE] = this.#options.trace ? 1 : 0;
      try {
        await team.step({ signal, deadlineMs: this.#deadlineMs });
      } catch (error) {
        const release = () => this.#releaseMade(board, given, new Set());
        if (team.left === undefined) release();
        else this.#leave(team.left, new Set([...bound, ...temporary]), [release, dispose]);
        throw error;
      }
      if (this.#options.trace) this.timeline.add(board);
      return this.#results(board, binding, into, given);
    } finally {
      if (team.left === undefined) dispose();
    }
  }

  /** @returns the sizes of the token ids */
  #putInputs(board: Board, binding: Binding, feeds: Feeds, temporary: ResidentTensor[]): readonly number[] {
    const { pointers } = board;
    let sizes: readonly number[] = [];
    const put = (at: number, value: bigint) => {
      for (const { part, index } of this.#readers[at]!) pointers[board.inputsAt[part]! + index] = value;
    };
    for (let at = 0; at < this.inputs.length; at++) {
      const value = binding.inputValues[at]!;
      if (value !== 0n) put(at, value);
    }
    binding.open.forEach((input, i) => {
      const feed = feeds[input.name]!;
      checkFeed(input, feed);
      let tensor = feed;
      if (!(tensor instanceof ResidentTensor)) {
        tensor = ResidentTensor.over(this.#library, tensor, input.name);
        temporary.push(tensor);
      }
      if (input.name === 'input_ids') sizes = feed.dims;
      put(binding.openAt[i]!, tensor.value);
    });
    return sizes;
  }

  /** @returns places of the outputs that have memory; ONNX Runtime makes that of the others */
  #putOutputs(board: Board, binding: Binding, into: Into, sizes: readonly number[]): Set<number> {
    const given = new Set<number>();
    const put = ({ part, index }: PartValue, value: bigint) => {
      const place = board.outputsAt[part]! + index;
      board.pointers[place] = value;
      given.add(place);
    };
    for (const { part, output, tensor } of this.#exchange.for(sizes))
      put({ part, index: output }, tensor.value);
    binding.fetches.forEach((name, at) => {
      const value = into[name]?.value ?? binding.outputValues[at]!;
      if (value !== 0n) put(this.#makers.get(name)!, value);
    });
    return given;
  }

  #results(
    board: Board,
    binding: Binding,
    into: Into,
    given: ReadonlySet<number>,
  ): Record<string, TensorValue> {
    const results: Record<string, TensorValue> = {};
    const taken = new Set<number>();
    let failure: { readonly error: unknown } | undefined;
    for (const at of binding.madeAt) {
      const name = binding.fetches[at]!;
      if (into[name] !== undefined) continue;
      const { part, index } = this.#makers.get(name)!;
      const place = board.outputsAt[part]! + index;
      taken.add(place);
      // Every value is taken into care, also after one that cannot be handed out.
      try {
        results[name] = adoptTensor(this.#library, board.pointers[place]!, name);
      } catch (error) {
        failure ??= { error };
      }
    }
    this.#releaseMade(board, given, taken);
    if (failure !== undefined) throw failure.error;
    return results;
  }

  /** Releases what ONNX Runtime made for the way from part to part, and outputs that nobody asked for. */
  #releaseMade(board: Board, given: ReadonlySet<number>, taken: ReadonlySet<number>): void {
    for (const [part, { outputs }] of this.#sessions.entries()) {
      for (let index = 0; index < outputs.length; index++) {
        const place = board.outputsAt[part]! + index;
        const value = board.pointers[place]!;
        if (value !== 0n && !given.has(place) && !taken.has(place)) this.#library.api.ReleaseValue(value);
      }
    }
  }

  /** Goes on with new threads and new memory, where old threads no longer answer. */
  #leave(left: Promise<void>, held: ReadonlySet<unknown>, free: readonly (() => void)[]): void {
    const all = [...free, this.#exchange.leave()];
    this.#leftBehind.set(left, held);
    void left.then(() => {
      for (const one of all) one();
      this.#leftBehind.delete(left);
    });
    this.#team = this.#makeTeam();
  }

  /** Threads that were left behind may still write there. */
  #refuseHeld(bound: ReadonlySet<unknown>): void {
    for (const held of this.#leftBehind.values()) {
      for (const tensor of bound) {
        if (!held.has(tensor)) continue;
        throw new InferenceError(
          'EXECUTOR_MEMORY_HELD',
          'A step that was given up still works on this cache.',
          {
            expected: 'a cache that no thread writes to',
            hint: 'Feed the prompt again.',
          },
        );
      }
    }
  }

  #makeTeam(): Team {
    const board = new Board(this.#library, this.#manifest, this.#sessions);
    return new Team(board, { ...this.#options, library: this.#library });
  }
}

/** An input or output of a part, by its number there. */
interface PartValue {
  readonly part: number;
  readonly index: number;
}

function places(sessions: readonly PartSession[], kind: 'inputs' | 'outputs', name: string): PartValue[] {
  return sessions.flatMap((session, part) =>
    session[kind].flatMap((info, index) => (info.name === name ? [{ part, index }] : [])),
  );
}

function inputOf(sessions: readonly PartSession[], { part, index }: PartValue): ValueInfo {
  return sessions[part]!.inputs[index]!;
}

function disposed(model: string): InferenceError {
  return new InferenceError('SESSION_DISPOSED', `The session of ${model} was disposed.`, {
    hint: 'Open the partition again.',
  });
}
