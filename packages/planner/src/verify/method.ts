import { type Bypass, type OnProgress, type Plan, planSteps, VerificationError } from '@cqil/core';
import {
  asFloat32,
  type DecoderSignature,
  float32ToFloat16,
  type Session,
  type SessionOptions,
  type TensorValue,
} from '@cqil/runtime-gpu';
import {
  type Anatomy,
  type BranchAnatomy,
  type LayerAnatomy,
  type ResidualAdd,
  streamValues,
} from '../anatomy/index.js';
import { SubmodelCutter } from '../onnx/extract.js';
import { DataType, intAttribute, type Model, type Node } from '../onnx/index.js';
import { openVariant } from '../variant/index.js';
import type { TestCase } from './cases.js';
import { addInto, type Contributions, ffnInput, groupOutput } from './combine.js';
import { type CaseRun, runCase } from './run-case.js';
import { unfuseSkipNorms } from './unfuse.js';

export interface MethodOptions {
  /**
   * Cuts the same layers apart but lets each read what the one before it left: the original computed in parts. How
   * far that is from the original as a whole is what cutting and rounding alone make.
   */
  readonly ungrouped?: boolean;
  readonly session?: SessionOptions;
  readonly signal?: AbortSignal;
  readonly onProgress?: OnProgress;
}

/** The stream's value by case and step. */
type Stream = readonly (readonly TensorValue[])[];

/**
 * Computes what a plan means on a model's weights without the rewriter: parts are cut out of the original graph
 * (each layer's attention and FFN in groups, runs of other layers as they are), run one at a time, and joined here
 * by the method's formulas. Memory is that of the largest part.
 *
 * @param model the original
 * @param anatomy of it
 * @returns for each case the logits and the cache by their names in the graph, as the original would give them
 * @throws VerificationError `VERIFY_CUT` for a graph whose layers cannot be cut apart; ModelFormatError `ONNX_CUT`;
 *   InferenceError from running the parts; the signal's reason
 */
export async function runMethod(
  model: Model,
  anatomy: Anatomy,
  plan: Plan,
  signature: DecoderSignature,
  cases: readonly TestCase[],
  options: MethodOptions = {},
): Promise<CaseRun[]> {
  return new MethodRun(model, anatomy, signature, cases, options).run(plan);
}

/** Layers that run one after the other as they are, or a group. */
type Part = { readonly layers: readonly LayerAnatomy[]; readonly bypass: Bypass | undefined };

class MethodRun {
  readonly #cutter: SubmodelCutter;
  readonly #producers: ReadonlyMap<string, Node>;
  readonly #results: Record<string, TensorValue>[][];

  constructor(
    readonly model: Model,
    readonly anatomy: Anatomy,
    readonly signature: DecoderSignature,
    readonly cases: readonly TestCase[],
    readonly options: MethodOptions,
  ) {
    const unfused = unfuseSkipNorms(model);
    this.#cutter = new SubmodelCutter(unfused);
    this.#producers = unfused.graph.producers();
    this.#results = cases.map(({ steps }) => steps.map(() => ({})));
  }

  async run(plan: Plan): Promise<CaseRun[]> {
    const parts = this.#parts(plan);
    let stream: Stream | undefined;
    for (const [index, part] of parts.entries()) {
      this.options.signal?.throwIfAborted();
      this.options.onProgress?.({
        phase: 'computing the method',
        done: index,
        total: parts.length,
        unit: 'parts',
      });
      if (part.bypass !== undefined) stream = await this.#group(part.layers, part.bypass, required(stream));
      else stream = await this.#sequence(part.layers, stream, index === parts.length - 1);
    }
    this.options.onProgress?.({
      phase: 'computing the method',
      done: parts.length,
      total: parts.length,
      unit: 'parts',
    });
    return this.#results.map((steps) => ({ steps }));
  }

  /** Always begins and ends with a run of layers (of none, perhaps): embedding and logits belong to those. */
  #parts(plan: Plan): Part[] {
    const bypass = new Map(plan.groups.map((group) => [group.layers[0], group.bypass]));
    const parts: { layers: LayerAnatomy[]; bypass: Bypass | undefined }[] = [
      { layers: [], bypass: undefined },
    ];
    for (const step of planSteps(plan)) {
      const layers = step.map((index) => this.anatomy.layers[index] as LayerAnatomy);
      const last = parts.at(-1);
      if (step.length > 1 && this.options.ungrouped === true) {
        parts.push(...layers.map((layer) => ({ layers: [layer], bypass: 0 })));
      } else if (step.length > 1) parts.push({ layers, bypass: bypass.get(step[0]) ?? 0 });
      else if (last?.bypass === undefined) last?.layers.push(...layers);
      else parts.push({ layers, bypass: undefined });
    }
    if (parts.at(-1)?.bypass !== undefined) parts.push({ layers: [], bypass: undefined });
    return parts;
  }

  async #sequence(
    layers: readonly LayerAnatomy[],
    x: Stream | undefined,
    last: boolean,
  ): Promise<Stream | undefined> {
    const from = layers[0]?.input ?? (last ? this.anatomy.streamEnd : undefined);
    const end = last ? this.anatomy.logits : (layers.at(-1)?.output ?? this.anatomy.streamStart);
    const given = x === undefined ? undefined : { name: from as string, value: x };
    const outputs = layers.flatMap((layer) => layer.cache.outputs);
    const found = await this.#runPart(given, [end], outputs);
    if (!last) return found.map((steps) => steps.map((step) => step[end] as TensorValue));
    this.#keep(found, [end]);
    return undefined;
  }

  async #group(layers: readonly LayerAnatomy[], bypass: Bypass, x: Stream): Promise<Stream> {
    const attention: (Float64Array[][] | undefined)[] = [];
    for (const layer of layers) {
      attention.push(layer.attention && (await this.#contribution(layer.attention, x, layer.cache.outputs)));
    }
    const ffn: (Float64Array[][] | undefined)[] = [];
    for (const [j, layer] of layers.entries()) {
      if (layer.ffn === undefined) {
        ffn.push(undefined);
        continue;
      }
      const f = eachStep(x, (value, testCase, step) => {
        const members = layers.map(
          ({ kind }, k): Contributions => ({
            attention: attention[k]?.[testCase]?.[step],
            passedOn: kind !== 'parallel',
          }),
        );
        return fromFloat64(ffnInput(toFloat64(value), members, j, bypass), value, undefined);
      });
      // Given before the casts and reshapes that carry it to the FFN, which may want it in another type or shape.
      const from = layer.attention?.add.sum ?? layer.ffn.add.skip;
      ffn.push(await this.#contribution(layer.ffn, f, [], from));
    }
    const last = layers.at(-1) as LayerAnatomy;
    const type = this.#carriedType(((last.ffn ?? last.attention) as BranchAnatomy).add);
    return eachStep(x, (value, testCase, step) => {
      const all = [...attention, ...ffn].flatMap((part) => part?.[testCase]?.[step] ?? []);
      return fromFloat64(groupOutput(toFloat64(value), all), value, type);
    });
  }

  /** What a branch adds to the stream when it reads `input`; its cache goes to the results. */
  async #contribution(
    branch: BranchAnatomy,
    input: Stream,
    cache: readonly string[],
    from = branch.add.skip,
  ): Promise<Float64Array[][]> {
    const { contributions } = branch.add;
    const constants = contributions.filter((name) => !this.#producers.has(name));
    const computed = contributions.filter((name) => this.#producers.has(name));
    const biases = await Promise.all(constants.map((name) => this.#constant(name)));
    const found = await this.#runPart({ name: from, value: input }, computed, cache);
    return input.map((steps, testCase) =>
      steps.map((x, step) => {
        const sum = new Float64Array(x.data.length);
        for (const name of computed) {
          addInto(sum, spread(toFloat64(found[testCase]?.[step]?.[name] as TensorValue), sum.length, name));
        }
        for (const [index, bias] of biases.entries()) {
          addInto(sum, spread(bias, sum.length, constants[index] as string));
        }
        return sum;
      }),
    );
  }

  async #constant(name: string): Promise<Float64Array> {
    const tensor = this.model.graph.initializers.get(name);
    const bytes = await tensor?.bytes();
    const type = Object.entries(ELEMENT_TYPES).find(([, value]) => value === tensor?.dataType)?.[0];
    if (tensor === undefined || bytes === undefined || type === undefined) throw cannotCut(name, 'no weight');
    const { buffer } = Uint8Array.from(bytes);
    const data =
      type === 'float16'
        ? new Uint16Array(buffer)
        : type === 'float64'
          ? new Float64Array(buffer)
          : new Float32Array(buffer);
    return toFloat64({ type, dims: tensor.dims, data } as TensorValue);
  }

  /** Cuts a part out, runs every case through it and frees it. The outputs in `cache` go to the results. */
  async #runPart(
    given: { name: string; value: Stream } | undefined,
    outputs: readonly string[],
    cache: readonly string[],
  ): Promise<Readonly<Record<string, TensorValue>>[][]> {
    this.options.signal?.throwIfAborted();
    const session = await this.#open(given, [...outputs, ...cache]);
    try {
      const found: Readonly<Record<string, TensorValue>>[][] = [];
      for (const [index, testCase] of this.cases.entries()) {
        const cut = given?.value[index]?.map((value) => ({ [given.name]: value })) ?? [];
        const names = [...outputs, ...cache];
        const known = this.#results[index] ?? [];
        const run = await runCase(session, this.signature, testCase, names, cut, known);
        found.push([...run.steps]);
      }
      this.#keep(found, cache);
      return found;
    } finally {
      await session.dispose();
    }
  }

  async #open(
    given: { name: string; value: Stream } | undefined,
    outputs: readonly string[],
  ): Promise<Session> {
    if (given === undefined) return openVariant(this.#cutter.cut([], outputs), this.options.session);
    const sample = given.value[0]?.[0] as TensorValue;
    const dataType = ELEMENT_TYPES[sample.type];
    if (dataType === undefined) throw cannotCut(given.name, `a stream of ${sample.type}`);
    const shape = sample.dims.map((size, axis) => (axis < sample.dims.length - 1 ? `cut_${axis}` : size));
    const sameShape = new Map<string, string>();
    for (const value of streamValues(this.anatomy))
      if (value !== given.name) sameShape.set(value, given.name);
    return openVariant(
      this.#cutter.cut([{ name: given.name, dataType, shape }], outputs, { sameShape }),
      this.options.session,
    );
  }

  #keep(
    found: readonly (readonly Readonly<Record<string, TensorValue>>[])[],
    names: readonly string[],
  ): void {
    for (const [testCase, steps] of found.entries()) {
      for (const [step, values] of steps.entries()) {
        const target = this.#results[testCase]?.[step];
        for (const name of names) {
          const value = values[name];
          if (target !== undefined && value !== undefined) target[name] = value;
        }
      }
    }
  }

  /** The element type behind the casts that follow a residual sum; `undefined` where there are none. */
  #carriedType(add: ResidualAdd): number | undefined {
    for (let value = add.carried; value !== add.sum; ) {
      const node = this.#producers.get(value);
      if (node === undefined) return undefined;
      if (node.opType === 'Cast') return intAttribute(node, 'to');
      value = node.input[0] ?? add.sum;
    }
    return undefined;
  }
}

const ELEMENT_TYPES: Readonly<Record<string, number>> = {
  float32: DataType.FLOAT,
  float16: DataType.FLOAT16,
  float64: DataType.DOUBLE,
};

function eachStep(
  stream: Stream,
  make: (value: TensorValue, testCase: number, step: number) => TensorValue,
): Stream {
  return stream.map((steps, testCase) => steps.map((value, step) => make(value, testCase, step)));
}

function toFloat64(tensor: TensorValue): Float64Array {
  return tensor.type === 'float64' ? tensor.data : Float64Array.from(asFloat32(tensor));
}

/** A value of the stream in the type of `like`, or of `dataType` where one is given. */
function fromFloat64(values: Float64Array, like: TensorValue, dataType: number | undefined): TensorValue {
  const { dims } = like;
  const type = dataType ?? ELEMENT_TYPES[like.type];
  if (type === DataType.DOUBLE) return { type: 'float64', dims, data: values };
  const data = Float32Array.from(values);
  if (type === DataType.FLOAT16) return { type: 'float16', dims, data: float32ToFloat16(data) };
  return { type: 'float32', dims, data };
}

/** A bias `[hidden]` repeated over all positions. */
function spread(values: Float64Array, length: number, name: string): Float64Array {
  if (values.length === length) return values;
  if (values.length === 0 || length % values.length !== 0) throw cannotCut(name, `${values.length} values`);
  return Float64Array.from({ length }, (_, i) => values[i % values.length] as number);
}

function required(stream: Stream | undefined): Stream {
  if (stream === undefined) throw cannotCut('the first layer', 'nothing before it');
  return stream;
}

function cannotCut(value: string, found: string): VerificationError {
  return new VerificationError('VERIFY_CUT', `The original graph cannot be cut apart at "${value}".`, {
    expected: 'contributions to the residual stream in floating point',
    found,
    hint: 'Check structure only, or compare the models by perplexity.',
  });
}
