import type { OrtLibrary } from '../session/native/library.js';
import { ResidentTensor } from '../session/native/resident-tensor.js';
import type { ValueInfo } from '../session/types.js';
import { zeroTensor } from '../tensor/make.js';
import type { PartitionManifest } from './manifest.js';
import type { PartSession } from './part-session.js';

/** An output of a part that others read, in memory that is used again. */
export interface ExchangeTensor {
  readonly part: number;
  readonly output: number;
  readonly tensor: ResidentTensor;
}

/** Steps of so many shapes have their memory kept: that of a prompt goes when the tokens behind it come. */
const KEPT = 2;

/**
 * Memory for what goes from part to part, made once for steps of one shape, so that a part's output is written where the
 * next one reads it. Values whose shape is not known from batch and new tokens alone are left to ONNX Runtime.
 */
export class ExchangeMemory {
  readonly #known = new Map<string, readonly ExchangeTensor[]>();

  constructor(
    readonly library: OrtLibrary,
    readonly manifest: PartitionManifest,
    readonly sessions: readonly PartSession[],
    /** Names of the free sizes of the token ids: batch and new tokens. */
    readonly free: ValueInfo['shape'],
  ) {}

  /** @param sizes of the token ids, `[batch, new tokens]` */
  for(sizes: readonly number[]): readonly ExchangeTensor[] {
    const key = sizes.join();
    let tensors = this.#known.get(key);
    if (tensors === undefined) {
      tensors = this.#make(sizes);
    } else {
      this.#known.delete(key);
    }
    this.#known.set(key, tensors);
    for (const old of this.#known.keys()) {
      if (this.#known.size <= KEPT) break;
      free(this.#known.get(old)!);
      this.#known.delete(old);
    }
    return tensors;
  }

  dispose(): void {
    this.leave()();
  }

  /** Goes on with new memory. @returns frees the old */
  leave(): () => void {
    const old = [...this.#known.values()];
    this.#known.clear();
    return () => {
      for (const tensors of old) free(tensors);
    };
  }

  #make(sizes: readonly number[]): ExchangeTensor[] {
    const whole = new Set(this.manifest.outputs);
    const size = new Map(this.free.map((name, axis) => [name, sizes[axis]!]));
    return this.sessions.flatMap(({ outputs }, part) =>
      outputs.flatMap(({ name, elementType }, output) => {
        const dims = this.manifest.shapes[name]?.map((dim) =>
          typeof dim === 'number' ? dim : size.get(dim),
        );
        if (whole.has(name) || dims === undefined || elementType === 'string') return [];
        if (!dims.every((dim) => dim !== undefined)) return [];
        const tensor = ResidentTensor.over(this.library, zeroTensor(elementType, dims), name);
        return [{ part, output, tensor }];
      }),
    );
  }
}

function free(tensors: readonly ExchangeTensor[]): void {
  for (const { tensor } of tensors) tensor.dispose();
}
