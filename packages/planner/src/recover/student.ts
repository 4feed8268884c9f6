import type { SessionOptions } from '@cqil/runtime-gpu';
import { type LinearMap, type MatrixReplacement, readMatrix, replaceMatrices } from '../linear/index.js';
import type { Model } from '../onnx/index.js';
import type { ModelParts } from '../parts/index.js';

/** The model that is being repaired: its graph and, opened as parts, what it computes. */
export class Student {
  #model: Model;

  constructor(
    model: Model,
    readonly parts: ModelParts,
    readonly session: SessionOptions | undefined,
  ) {
    this.#model = model;
  }

  /** As far as it is repaired. */
  get model(): Model {
    return this.#model;
  }

  /** The matrix that a map has now with something added to it. */
  async plus(
    map: LinearMap,
    weight: Float64Array,
    bias: Float64Array | undefined,
  ): Promise<MatrixReplacement> {
    const now = await readMatrix(this.#model, map, this.session);
    const sum = (a: Float32Array, b: Float64Array) => a.map((value, i) => value + (b[i] as number));
    return {
      map,
      weight: sum(now.weight, weight),
      bias: now.bias === undefined ? undefined : bias === undefined ? now.bias : sum(now.bias, bias),
    };
  }

  /** Puts matrices in place, stored as they will be shipped, so that what is fitted later sees their rounding, too. */
  async take(replacements: readonly MatrixReplacement[]): Promise<void> {
    if (replacements.length === 0) return;
    this.#model = replaceMatrices(this.#model, replacements);
    for (const layer of new Set(replacements.map(({ map }) => map.layer))) {
      await this.parts.replace(layer, this.#model);
    }
  }
}
