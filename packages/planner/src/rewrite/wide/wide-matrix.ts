import type { SessionOptions } from '@cqil/runtime-gpu';
import { type LinearMap, readMatrix } from '../../linear/index.js';
import type { Model } from '../../onnx/index.js';
import { type AffineMatrix, type ColumnRun, foldNorm, MatrixBuilder, type NormScaling } from './algebra.js';

/** A part of a wide matrix: one map of one member. */
export interface WidePiece {
  readonly map: LinearMap;
  /** Where its columns go: q, k, v, gate and up. */
  readonly columns?: readonly ColumnRun[];
  /** Where its rows go: o and down. */
  readonly row?: number;
  /** The norm before it, to be folded into it. */
  readonly norm?: NormScaling;
}

export interface WideMatrixShape {
  readonly inFeatures: number;
  readonly outFeatures: number;
  readonly hasBias: boolean;
}

export interface WideMatrixOptions extends WideMatrixShape {
  readonly pieces: readonly WidePiece[];
  /** The gain that the shared norm keeps. */
  readonly shared?: Float64Array | undefined;
  /** What is added to the outputs besides the pieces' own biases. */
  readonly biases?: readonly Float64Array[];
}

/** The matrix that was put together last: codes and scales of one matrix are asked for one after the other. */
export class LatestMatrix {
  #of: WideMatrix | undefined;
  #matrix: Promise<AffineMatrix> | undefined;

  get(of: WideMatrix, make: () => Promise<AffineMatrix>): Promise<AffineMatrix> {
    if (this.#of !== of || this.#matrix === undefined) {
      this.#of = of;
      this.#matrix = make();
    }
    return this.#matrix;
  }
}

/** A matrix of a wide layer, put together when it is asked for: memory is that of it and of one member's. */
export class WideMatrix {
  constructor(
    /** The model that has the members' maps. */
    readonly model: Model,
    readonly options: WideMatrixOptions,
    readonly latest: LatestMatrix,
    readonly session: SessionOptions = {},
  ) {}

  /** @throws AnatomyError `MAP_NOT_AFFINE`; InferenceError */
  read(): Promise<AffineMatrix> {
    return this.latest.get(this, () => this.#build());
  }

  async #build(): Promise<AffineMatrix> {
    const { inFeatures, outFeatures, hasBias, pieces } = this.options;
    const builder = new MatrixBuilder(inFeatures, outFeatures, hasBias);
    for (const { map, columns, row, norm } of pieces) {
      const found = await readMatrix(this.model, map, this.session);
      const plain = { inFeatures: map.inFeatures, outFeatures: map.outFeatures, ...found };
      const part = norm === undefined ? plain : foldNorm(plain, norm, this.options.shared);
      if (columns !== undefined) builder.columns(part, columns);
      else builder.rows(part, row ?? 0);
    }
    for (const bias of this.options.biases ?? []) builder.addBias(bias);
    return builder.build();
  }
}
