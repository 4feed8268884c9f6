import type { SessionOptions, TensorValue } from '@cqil/runtime-gpu';
import { asFloat32, type Session } from '@cqil/runtime-gpu';
import type { Anatomy } from '../anatomy/index.js';
import { linearMaps } from '../linear/index.js';
import { extractSubmodel, SubmodelCutter } from '../onnx/extract.js';
import { DataType, type Model, shapeOf } from '../onnx/index.js';
import { hiddenSize, runSequence } from '../probe/run.js';
import { openVariant } from '../variant/index.js';
import { unfuseSkipNorms } from '../verify/unfuse.js';
import type { Segment } from './policy.js';

/** How sure a border is of its token: CALM's two measures that need no training (arXiv 2207.07061, section 3.4). */
export const EXIT_SCORES = ['softmax', 'saturation'] as const;
export type ExitScore = (typeof EXIT_SCORES)[number];

/** Confidence lies in blocks of so many tokens, which are taken for independent of each other. */
const SEGMENT = 32;

/** Weights that are read for a token, in bytes. */
export interface ExitCosts {
  /** Of one step, on average. */
  readonly layer: number;
  /** The part of `layer` that gives keys and values: what a token that has left still needs (state propagation). */
  readonly keyValue: number;
  /** Of the final norm and the product that gives logits. */
  readonly head: number;
}

/**
 * A decoder with an exit at some of its borders: the stream there, through the final norm and the head.
 *
 * @param borders after how many steps of the stack, ascending, each less than all of them
 */
export class ExitStates {
  private constructor(
    readonly anatomy: Anatomy,
    readonly borders: readonly number[],
    readonly costs: ExitCosts,
    readonly stack: Session,
    readonly head: Session,
    readonly last: string,
  ) {}

  static async open(
    model: Model,
    anatomy: Anatomy,
    borders: readonly number[],
    session: SessionOptions = {},
  ): Promise<ExitStates> {
    const unfused = unfuseSkipNorms(model);
    const { layers } = anatomy;
    const last = layers.at(-1)!.output;
    const wanted = borders.flatMap((border) => [layers[border - 1]!.input, layers[border - 1]!.output]);
    const cutter = new SubmodelCutter(unfused);
    const state = { name: last, dataType: DataType.FLOAT, shape: ['batch', 'seq', 'hidden'] };
    const logits = model.graph.outputs[0]!.name;
    const headModel = cutter.cut([state], [logits]);
    const stack = await openVariant(cutter.cut([], [...new Set([...wanted, last])]), session);
    try {
      const head = await openVariant(headModel, session);
      return new ExitStates(anatomy, borders, costsOf(unfused, anatomy, headModel), stack, head, last);
    } catch (error) {
      await stack.dispose();
      throw error;
    }
  }

  /** What every border says of a sequence's tokens, by measure; `[segments]` for each. */
  async segments(ids: readonly number[]): Promise<Record<ExitScore, Segment[]>> {
    const { layers } = this.anatomy;
    const states = await runSequence(
      this.stack,
      ids,
      this.stack.outputs.map(({ name }) => name),
    );
    const full = await this.#read(states[this.last]!, ids);
    const softmax: Float32Array[] = [];
    const saturation: Float32Array[] = [];
    const agrees: Uint8Array[] = [];
    for (const border of this.borders) {
      const layer = layers[border - 1]!;
      const own = await this.#read(states[layer.output]!, ids);
      softmax.push(own.margins);
      saturation.push(cosines(states[layer.input]!, states[layer.output]!));
      agrees.push(Uint8Array.from(own.tokens, (token, t) => (token === full.tokens[t] ? 1 : 0)));
    }
    const cut = (scores: readonly Float32Array[]) => {
      const segments: Segment[] = [];
      for (let from = 0; from + SEGMENT <= ids.length; from += SEGMENT) {
        segments.push({
          scores: scores.map((of) => of.subarray(from, from + SEGMENT)),
          agrees: agrees.map((of) => of.subarray(from, from + SEGMENT)),
        });
      }
      return segments;
    };
    return { softmax: cut(softmax), saturation: cut(saturation) };
  }

  async #read(state: TensorValue, ids: readonly number[]) {
    const results = await runSequence(this.head, ids, [this.head.outputs[0]!.name], { [this.last]: state });
    const tensor = Object.values(results)[0]!;
    const logits = asFloat32(tensor);
    const vocabulary = tensor.dims.at(-1)!;
    const tokens = new Int32Array(ids.length);
    const margins = new Float32Array(ids.length);
    for (let t = 0; t < ids.length; t++) {
      const row = logits.subarray(t * vocabulary, (t + 1) * vocabulary);
      const { token, margin } = topTwo(row);
      tokens[t] = token;
      margins[t] = margin;
    }
    return { tokens, margins };
  }

  async dispose(): Promise<void> {
    await this.stack.dispose();
    await this.head.dispose();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }
}

/** Logits so far below the highest weigh less than float32's rounding, all of a vocabulary together. */
const NEGLIGIBLE = -32;

/** The most likely token, and by how much it is more probable than the next. */
export function topTwo(logits: Float32Array): { token: number; margin: number } {
  let token = 0;
  let first = Number.NEGATIVE_INFINITY;
  let second = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < logits.length; i++) {
    const value = logits[i]!;
    if (value > first) {
      second = first;
      first = value;
      token = i;
    } else if (value > second) second = value;
  }
  let sum = 0;
  for (let i = 0; i < logits.length; i++) {
    const below = logits[i]! - first;
    if (below > NEGLIGIBLE) sum += Math.exp(below);
  }
  return { token, margin: (1 - Math.exp(second - first)) / sum };
}

/** Cosine of each token's two states `[1, seq, hidden]`. */
function cosines(a: TensorValue, b: TensorValue): Float32Array {
  const [x, y] = [asFloat32(a), asFloat32(b)];
  const hidden = hiddenSize(a);
  return Float32Array.from({ length: x.length / hidden }, (_, t) => {
    let [product, left, right] = [0, 0, 0];
    for (let k = t * hidden; k < (t + 1) * hidden; k++) {
      product += x[k]! * y[k]!;
      left += x[k]! * x[k]!;
      right += y[k]! * y[k]!;
    }
    return product / Math.sqrt(left * right || 1);
  });
}

/**
 * What several layers' parts of the graph hold is not theirs, so it does not count: tables of rotary embeddings, of which
 * rows are looked up, and what lengths are read from.
 */
function costsOf(model: Model, anatomy: Anatomy, head: Model): ExitCosts {
  const layers = anatomy.layers.map(({ input, output }) => {
    const state = { name: input, dataType: DataType.FLOAT, shape: ['batch', 'seq', 'hidden'] };
    return extractSubmodel(model, [state], [output]).graph.initializers;
  });
  const holders = new Map<string, number>();
  for (const name of layers.flatMap((own) => [...own.keys()]))
    holders.set(name, (holders.get(name) ?? 0) + 1);
  const own = layers.flatMap((of) => [...of].filter(([name]) => holders.get(name) === 1));
  const layer = sum(own.map(([, { byteLength }]) => byteLength)) / layers.length;
  return {
    layer,
    keyValue: layer * keyValueShare(model, anatomy),
    head: sum([...head.graph.initializers.values()].map(({ byteLength }) => byteLength)),
  };
}

/** Of the weights in the layers' matrices, those that give keys and values; 0 where the graph does not tell. */
function keyValueShare(model: Model, anatomy: Anatomy): number {
  const { maps } = linearMaps(model, anatomy);
  const hidden = maps.find(({ role }) => role === 'qkv')?.inFeatures ?? 0;
  const infos = new Map(model.graph.outputs.map((info) => [info.name, shapeOf(info) ?? []]));
  const features = anatomy.layers.flatMap(({ cache }) =>
    cache.outputs.map((name) => {
      const [, heads, , size] = infos.get(name) ?? [];
      return typeof heads === 'number' && typeof size === 'number' ? heads * size : 0;
    }),
  );
  const weights = sum(maps.map(({ inFeatures, outFeatures }) => inFeatures * outFeatures));
  return weights === 0 ? 0 : (sum(features) * hidden) / weights;
}

function sum(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0);
}
