import {
  asFloat32,
  float32ToFloat16,
  integerTensor,
  type SessionOptions,
  type TensorValue,
  zeroTensor,
} from '@cqil/runtime-gpu';
import { type Anatomy, streamValues } from '../../../anatomy/index.js';
import { SubmodelCutter } from '../../../onnx/extract.js';
import {
  DataType,
  elementType,
  isFloatType,
  type Model,
  shapeOf,
  type ValueInfo,
} from '../../../onnx/index.js';
import { withVariant } from '../../../variant/index.js';
import { Refused } from '../types.js';

/** How many tokens are there in a run of a part, and which of them are padding. */
export interface Situation {
  readonly past: number;
  readonly seq: number;
  /** By sequence, how many positions at its beginning are padding. */
  readonly padding: readonly number[];
}

/** A tensor of numbers for a value at which the graph is cut. */
export interface Numbers {
  readonly dims: readonly number[];
  readonly data: Float32Array;
}

export type RunPart = (
  situation: Situation,
  given?: Readonly<Record<string, Numbers>>,
) => Promise<Readonly<Record<string, Numbers>>>;

/** Which positions of each sequence are tokens: `[batch][past + seq]`, 1 or 0. */
export function maskOf({ past, seq, padding }: Situation): number[][] {
  return padding.map((count) => Array.from({ length: past + seq }, (_, t) => (t < count ? 0 : 1)));
}

/** Position ids of the new tokens, as Transformers counts them: tokens from 0, padding 1. */
export function positionsOf({ past, seq, padding }: Situation): number[][] {
  return padding.map((count) =>
    Array.from({ length: seq }, (_, s) => (past + s < count ? 1 : past + s - count)),
  );
}

/** What the graph inputs are for, by the names that decoders' exporters give them. */
export interface InputRoles {
  readonly mask: ValueInfo | undefined;
  readonly positions: ValueInfo | undefined;
}

export function inputRoles(model: Model): InputRoles {
  const named = (name: string) => model.graph.feeds.find((feed) => feed.name === name);
  return { mask: named('attention_mask'), positions: named('position_ids') };
}

/**
 * Runs small parts of a graph to find out what they compute: masks, rotary tables, the way from queries to scores.
 * What is read of the residual stream in these parts is its shape only.
 */
export class Probe {
  readonly roles: InputRoles;
  readonly #cutter: SubmodelCutter;
  readonly #states: ReadonlySet<string>;
  readonly #shapes: ReadonlyMap<string, readonly (number | string | undefined)[]>;

  constructor(
    readonly model: Model,
    readonly anatomy: Anatomy,
    readonly types: ReadonlyMap<string, number>,
    readonly session: SessionOptions,
  ) {
    const plain = model.clone();
    // Shapes that were declared for whole batches do not hold for what is fed here.
    plain.graph.valueInfo = [];
    this.#cutter = new SubmodelCutter(plain);
    this.roles = inputRoles(model);
    this.#states = streamStates(anatomy);
    this.#shapes = new Map(model.graph.inputs.map((input) => [input.name, shapeOf(input) ?? []]));
  }

  /**
   * Cuts out what computes `outputs` from `cuts` and hands a function over that runs it.
   *
   * @param stream the state of the residual stream that stands for all of them where shapes are read
   * @param sizes `hidden` is the stream's last axis; `cache` replaces the fixed axes of caches (heads and head size)
   */
  async with<T>(
    stream: string,
    cuts: readonly string[],
    outputs: readonly string[],
    sizes: {
      readonly hidden: number;
      readonly cache?: number;
      readonly rank?: Readonly<Record<string, number>>;
    },
    use: (run: RunPart) => Promise<T>,
  ): Promise<T> {
    const named = [...new Set([...cuts, stream])];
    const sameShape = new Map(
      [...this.#states].filter((value) => value !== stream).map((value) => [value, stream]),
    );
    const small = sizes.cache === undefined ? [] : this.#cacheInputs();
    const part = this.#cutter.cut(
      [...named, ...small].map((name) => ({
        name,
        dataType: this.types.get(name) ?? DataType.FLOAT,
        shape: Array.from(
          { length: sizes.rank?.[name] ?? (name === stream ? 3 : 4) },
          (_, axis) => `${name}/${axis}`,
        ),
      })),
      outputs,
      { sameShape },
    );
    return withVariant(part, { threads: 1, graphOptimization: 'disabled', ...this.session }, (session) =>
      use(async (situation, given = {}) => {
        const feeds: Record<string, TensorValue> = {};
        for (const input of session.inputs) {
          feeds[input.name] = this.#feed(input.name, input.elementType, situation, stream, sizes, given);
        }
        const results = await session.run(feeds, outputs);
        return Object.fromEntries(
          Object.entries(results).map(([name, value]) => [
            name,
            { dims: value.dims, data: asFloat32(value) },
          ]),
        );
      }),
    );
  }

  #cacheInputs(): string[] {
    return this.anatomy.layers.flatMap(({ cache }) => cache.inputs);
  }

  #feed(
    name: string,
    type: TensorValue['type'],
    situation: Situation,
    stream: string,
    sizes: { readonly hidden: number; readonly cache?: number },
    given: Readonly<Record<string, Numbers>>,
  ): TensorValue {
    const { seq, past, padding } = situation;
    const batch = padding.length;
    const numbers = given[name];
    if (numbers !== undefined) return floatTensor(type, numbers);
    if (name === stream) return zeroTensor(type, [batch, seq, sizes.hidden]);
    if (name === this.roles.mask?.name)
      return integerTensor(type, maskOf(situation).flat(), [batch, past + seq]);
    if (name === this.roles.positions?.name)
      return integerTensor(type, positionsOf(situation).flat(), [batch, seq]);
    if (name === this.anatomy.tokens) {
      const float = isFloatType(elementType(this.#input(name)) ?? 0);
      return float ? zeroTensor(type, [batch, seq, sizes.hidden]) : zeroTensor(type, [batch, seq]);
    }
    const shape = this.#shapes.get(name);
    if (this.#cacheInputs().includes(name) && shape?.length === 4) {
      const size = (axis: number) => sizes.cache ?? Number(shape[axis]);
      return zeroTensor(type, [batch, size(1), past, size(3)]);
    }
    if (shape !== undefined && shape.length <= 1) return zeroTensor(type, shape.length === 0 ? [] : [1]);
    throw new Refused({
      node: `input "${name}"`,
      expected: 'token ids, an attention mask, positions and caches as inputs',
      found: 'another input that attention depends on',
    });
  }

  #input(name: string): ValueInfo {
    return this.model.graph.inputs.find((input) => input.name === name) as ValueInfo;
  }
}

function floatTensor(type: TensorValue['type'], { dims, data }: Numbers): TensorValue {
  if (type === 'float16') return { type, dims, data: float32ToFloat16(data) };
  if (type === 'float64') return { type, dims, data: Float64Array.from(data) };
  return { type: 'float32', dims, data };
}

/** Everything of the shape `[batch, seq, hidden]` that the analysis knows. */
function streamStates(anatomy: Anatomy): Set<string> {
  const states = streamValues(anatomy);
  for (const { attention, ffn } of anatomy.layers) {
    if (attention?.normOutput !== undefined) states.add(attention.normOutput);
    const folded = (attention?.add.carriers.length ?? 0) > 0;
    if (ffn?.normOutput !== undefined && !folded) states.add(ffn.normOutput);
  }
  return states;
}
