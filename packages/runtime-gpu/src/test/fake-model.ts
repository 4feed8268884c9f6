import type { StepCache, StepModel, StepRequest, StepResult } from '../decoder/step-model.js';

/** Logits behind a context. */
export type Rule = (context: readonly number[]) => Float32Array;

/** What a cache's handles share. */
interface Memory {
  readonly ids: number[];
  disposed: boolean;
}

/**
 * A model whose logits are a function of the tokens before, with caches as strict as those that are written in
 * place: a handle that was cut back, overwritten or disposed of must not be used.
 */
export class FakeModel implements StepModel {
  readonly #rule: Rule;
  readonly #step: ((positions: number) => void | Promise<void>) | undefined;
  readonly #memories = new Set<Memory>();
  readonly signature: { readonly cache: readonly { readonly sequenceAxis: number | undefined }[] };
  /** Tokens of each call of `forward`. */
  readonly calls: number[] = [];

  /**
   * @param step called in each pass with the number of its tokens
   * @param rewinds whether its cache can be cut back
   */
  constructor(rule: Rule, step?: (positions: number) => void | Promise<void>, rewinds = true) {
    this.#rule = rule;
    this.#step = step;
    this.signature = { cache: [{ sequenceAxis: rewinds ? 2 : undefined }] };
  }

  /** Caches that were not disposed of. */
  get live(): number {
    return this.#memories.size;
  }

  async forward({ inputIds, cache, keep = 'all', signal }: StepRequest): Promise<StepResult> {
    const ids = inputIds[0]!;
    if (ids.length === 0) throw new Error('no tokens');
    this.calls.push(ids.length);
    await this.#step?.(ids.length);
    signal?.throwIfAborted();
    let memory: Memory;
    if (cache === undefined) {
      memory = { ids: [], disposed: false };
      this.#memories.add(memory);
    } else {
      memory = (cache as FakeCache).memory();
      if (memory.ids.length !== cache.length) throw new Error('a handle of the past');
    }
    const rows = ids.map((id) => {
      memory.ids.push(id);
      return this.#rule(memory.ids);
    });
    const kept = keep === 'last' ? rows.slice(-1) : rows;
    const vocabulary = kept[0]!.length;
    const data = new Float32Array(kept.length * vocabulary);
    kept.forEach((row, i) => {
      data.set(row, i * vocabulary);
    });
    return {
      logits: { dims: [1, kept.length, vocabulary], data },
      cache: new FakeCache(memory, memory.ids.length, () => this.#memories.delete(memory)),
    };
  }
}

class FakeCache implements StepCache {
  readonly #memory: Memory;
  readonly #free: () => void;
  readonly length: number;

  constructor(memory: Memory, length: number, free: () => void) {
    this.#memory = memory;
    this.length = length;
    this.#free = free;
  }

  memory(): Memory {
    if (this.#memory.disposed) throw new Error('disposed');
    if (this.#memory.ids.length < this.length) throw new Error('cut back');
    return this.#memory;
  }

  truncate(length: number): StepCache {
    if (length > this.length || length < 1) throw new Error(`${this.length} positions, not ${length}`);
    this.memory().ids.length = length;
    return new FakeCache(this.#memory, length, this.#free);
  }

  dispose(): void {
    this.memory().disposed = true;
    this.#free();
  }
}

/** Logits from a hash of the last tokens: the same for the same tokens, without any pattern. */
export function hashedRule(vocabulary: number, seed: number, reach = 2, spread = 3): Rule {
  return (context) => {
    let state = seed >>> 0;
    for (const id of context.slice(-reach)) state = mix(state ^ (id + 1));
    return Float32Array.from({ length: vocabulary }, (_, id) => {
      return (mix(state + Math.imul(id + 1, 0x9e3779b9)) / 2 ** 32 - 0.5) * 2 * spread;
    });
  };
}

function mix(value: number): number {
  let mixed = Math.imul(value ^ (value >>> 16), 0x21f0aaad);
  mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97);
  return (mixed ^ (mixed >>> 15)) >>> 0;
}
