import { type Bypass, type Plan, planSteps, UsageError, validatePlan } from '@cqil/core';
import {
  asFloat32,
  type ElementType,
  type SessionOptions,
  type TensorValue,
  type ValueInfo,
} from '@cqil/runtime-gpu';
import type { Anatomy, LayerAnatomy } from '../anatomy/index.js';
import { type Model, shapeOf } from '../onnx/index.js';
import { type LayerModels, PartCutter, type PartModel, STREAM_INPUT, STREAM_OUTPUT } from './cut.js';
import { type BranchSource, SharedInput } from './group.js';
import { PartSession } from './part-session.js';
import { HeadScorer, type Scores } from './score.js';
import { requireBatch, requireFinite, type StreamBatch } from './stream-batch.js';

export interface PartsOptions {
  readonly session?: SessionOptions;
  /** Inner values of a layer's branches that runs may ask for, by their names in the graph; none when absent. */
  readonly taps?: (layer: LayerAnatomy) => readonly string[];
  readonly signal?: AbortSignal;
}

export interface PartsRunOptions {
  /** Looked at before every run of a part. */
  readonly signal?: AbortSignal | undefined;
}

export interface BranchOptions extends PartsRunOptions {
  /** Values to hand out besides, of those that were declared when the parts were opened. */
  readonly taps?: readonly string[];
}

export interface BranchResult {
  /** What the branch adds to the stream. */
  readonly contribution: StreamBatch;
  /** By name, in the type and shape that they have in the graph. */
  readonly taps: Readonly<Record<string, TensorValue>>;
}

export interface PlanRunOptions extends PartsRunOptions {
  /** First layer to compute: the beginning of a step of the plan, whose input is given; 0 when absent. */
  readonly from?: number;
}

/**
 * One part runs at a time, so threads of the others must not keep a core busy waiting for more: with two sessions a
 * layer that halves the speed.
 */
const WITHOUT_SPINNING = { 'session.intra_op.allow_spinning': '0' };
/** A branch's buffers are small; an arena for each of them would together hold more than the weights. */
const LAYER_CONFIG = { ...WITHOUT_SPINNING, 'session.enable_cpu_mem_arena': '0' };

interface LayerSessions {
  readonly attention: PartSession | undefined;
  readonly ffn: PartSession | undefined;
}

/**
 * A decoder opened as parts, each a session of its own: the embedding, every layer's branches, the head. Any plan can
 * be computed from them, step by step, without opening a model for each.
 *
 * Parts are cut out of the original graph and loaded when they are first needed; weights are read from the model's
 * files, and all parts together hold them once. Streams are float32, whatever the graph computes in; sums are
 * float32. Every run starts from an empty cache, without padding.
 *
 * @example
 * ```ts
 * await using parts = await ModelParts.open(model, analyze(model));
 * const x = await parts.embed([[5, 17, 3]]);
 * const y = await parts.run(plan, x);
 * const logits = await parts.logits(y);
 * ```
 */
export class ModelParts implements BranchSource {
  readonly anatomy: Anatomy;
  /** Width of the residual stream. */
  readonly hidden: number;
  /** Whether all positions of a run are computed independently of how many there are; see `open`. */
  readonly exactBatches: boolean;
  readonly #options: PartsOptions;
  readonly #tokens: ValueInfo;
  readonly #type: ElementType;
  readonly #embedding: PartSession;
  readonly #layers: LayerSessions[];
  readonly #head: PartSession;
  readonly #scorer: HeadScorer;

  private constructor(parts: {
    anatomy: Anatomy;
    hidden: number;
    exactBatches: boolean;
    options: PartsOptions;
    tokens: ValueInfo;
    type: ElementType;
    embedding: PartSession;
    layers: readonly LayerModels[];
    head: PartModel;
  }) {
    this.anatomy = parts.anatomy;
    this.hidden = parts.hidden;
    this.exactBatches = parts.exactBatches;
    this.#options = parts.options;
    this.#tokens = parts.tokens;
    this.#type = parts.type;
    this.#embedding = parts.embedding;
    this.#layers = parts.layers.map((layer) => this.#sessions(layer));
    this.#head = new PartSession(parts.head, parts.tokens, partOptions(parts.options, WITHOUT_SPINNING));
    this.#scorer = new HeadScorer(this.#head);
  }

  /**
   * Cuts a model apart. Of the sessions only the embedding's is opened at once.
   *
   * Models whose activations are quantised as they run, with one scale for all that is in a tensor
   * (`DynamicQuantizeLinear`), give slightly other numbers for other batches; `exactBatches` is false for them.
   *
   * @param anatomy of `model`
   * @throws AnatomyError `PARTS_NO_TOKENS`, `PARTS_READS_TOKENS`, `PARTS_STREAM_TYPE`; UsageError `PARTS_TAP`;
   *   ModelFormatError `ONNX_CUT`; what `openVariant` throws; the signal's reason
   */
  static async open(model: Model, anatomy: Anatomy, options: PartsOptions = {}): Promise<ModelParts> {
    options.signal?.throwIfAborted();
    const cutter = new PartCutter(model, anatomy);
    const tokens = tokensInput(model, anatomy);
    const embedding = new PartSession(cutter.embedding(), tokens, partOptions(options, LAYER_CONFIG));
    try {
      const type = (await embedding.outputType(anatomy.streamStart)) ?? 'float32';
      const layers = anatomy.layers.map((layer) =>
        cutter.layer(layer.index, type, options.taps?.(layer) ?? []),
      );
      const exactBatches = !model.graph.nodes.some(({ opType }) => opType.startsWith('DynamicQuantize'));
      const head = cutter.head(type);
      const start = await embedding.run({ ids: [[0]], fetches: [anatomy.streamStart] });
      const hidden = (start[anatomy.streamStart] as TensorValue).data.length;
      return new ModelParts({
        anatomy,
        hidden,
        exactBatches,
        options,
        tokens,
        type,
        embedding,
        layers,
        head,
      });
    } catch (error) {
      await embedding.dispose();
      throw error;
    }
  }

  get layers(): readonly LayerAnatomy[] {
    return this.anatomy.layers;
  }

  /** Token ids, all rows of one length, to the stream before the first layer. */
  async embed(ids: readonly (readonly number[])[], options: PartsRunOptions = {}): Promise<StreamBatch> {
    requireBatch(ids);
    const name = this.anatomy.streamStart;
    const results = await this.#embedding.run({ ids, fetches: [name], signal: this.#signal(options) });
    const value = results[name] as TensorValue;
    const data = asFloat32(value, name);
    requireFinite(data, this.#embedding.label);
    const [batch, sequence] = [ids.length, ids[0]!.length];
    return { data, dims: [batch, sequence, data.length / (batch * sequence)] };
  }

  /**
   * What the attention of layer j adds to the stream when it reads x; in a parallel block, with the FFN.
   *
   * @throws UsageError `PARTS_NO_BRANCH`, `PARTS_TAP`; MetricError `ACTIVATION_NOT_FINITE`; InferenceError; the
   *   signal's reason
   */
  async attention(j: number, x: StreamBatch, options: BranchOptions = {}): Promise<BranchResult> {
    return this.#branch(this.#layer(j).attention, `attention of layer ${j}`, x, options);
  }

  /** What the FFN of layer j adds to the stream when it reads f. Throws as `attention`. */
  async ffn(j: number, f: StreamBatch, options: BranchOptions = {}): Promise<BranchResult> {
    return this.#branch(this.#layer(j).ffn, `FFN of layer ${j}`, f, options);
  }

  async contributionOfAttention(j: number, x: StreamBatch, signal?: AbortSignal): Promise<StreamBatch> {
    return (await this.attention(j, x, { signal })).contribution;
  }

  async contributionOfFfn(j: number, f: StreamBatch, signal?: AbortSignal): Promise<StreamBatch> {
    return (await this.ffn(j, f, { signal })).contribution;
  }

  /** The stream behind layer j, which reads x. */
  layer(j: number, x: StreamBatch, options: PartsRunOptions = {}): Promise<StreamBatch> {
    return this.group([j], 0, x, options);
  }

  /**
   * The stream behind a group of layers that all read x (CQIL, arXiv 2404.06709):
   *
   *     f_j = x + a_j + Σ a_k   over the layers k that the bypass reaches
   *     y   = x + Σ_j (a_j + m_j)
   */
  async group(
    layers: readonly number[],
    bypass: Bypass,
    x: StreamBatch,
    options: PartsRunOptions = {},
  ): Promise<StreamBatch> {
    for (const j of layers) this.#layer(j);
    return (await this.sharing(x, options).group(layers, bypass)).output;
  }

  /** For several groups that begin with the same state x: what they have in common is computed once. */
  sharing(x: StreamBatch, options: PartsRunOptions = {}): SharedInput {
    return new SharedInput(this, x, this.#signal(options));
  }

  /**
   * The stream behind the last layer, computed by a plan from the state that its step at layer `from` reads.
   *
   * @throws PlanError for another number of layers; UsageError `PARTS_STEP` where no step begins at `from`
   */
  async run(plan: Plan, x: StreamBatch, options: PlanRunOptions = {}): Promise<StreamBatch> {
    const from = options.from ?? 0;
    validatePlan(plan, { layers: this.layers.length });
    const steps = planSteps(plan);
    const first = steps.findIndex(([layer]) => layer === from);
    if (first === -1 && from !== this.layers.length) {
      throw new UsageError('PARTS_STEP', 'The plan cannot be run from that layer.', {
        expected: `the first layer of a step, of ${steps.map(([layer]) => layer).join(', ')}`,
        found: String(from),
      });
    }
    const bypass = new Map(plan.groups.map((group) => [group.layers[0], group.bypass]));
    let state = x;
    for (const step of first === -1 ? [] : steps.slice(first)) {
      state = await this.group(step, bypass.get(step[0]) ?? 0, state, options);
    }
    return state;
  }

  /** Logits `[batch, sequence, vocabulary]`, float32, of the stream behind the last layer. */
  async logits(stream: StreamBatch, options: PartsRunOptions = {}): Promise<TensorValue> {
    return this.#scorer.logits(stream, this.#signal(options));
  }

  /**
   * Scores what models predict from their final streams, inside ONNX Runtime: loss of each next token, and against
   * the reference KL divergence and agreement of the best token. Memory is that of 128 positions' logits, a few times, whatever the batch.
   *
   * @param others final streams of the models to compare, each of the shape of `reference`
   * @param ids the batch, `[batch][sequence]`
   * @throws MetricError `ACTIVATION_NOT_FINITE`; InferenceError; the signal's reason
   */
  async score(
    reference: StreamBatch,
    others: readonly StreamBatch[],
    ids: readonly (readonly number[])[],
    options: PartsRunOptions = {},
  ): Promise<Scores> {
    requireBatch(ids);
    return this.#scorer.score(reference, others, ids, this.#signal(options));
  }

  /**
   * Takes layer j from another model from now on: one with the same values by name and other weights.
   *
   * @throws as `open`; the layer is then as it was
   */
  async replace(j: number, model: Model): Promise<void> {
    const before = this.#layer(j);
    const taps = this.#options.taps?.(this.anatomy.layers[j]!) ?? [];
    const made = this.#sessions(new PartCutter(model, this.anatomy).layer(j, this.#type, taps));
    try {
      await Promise.all([made.attention?.open(), made.ffn?.open()]);
    } catch (error) {
      await disposeLayer(made);
      throw error;
    }
    this.#layers[j] = made;
    await disposeLayer(before);
  }

  /** Frees all parts. May be called more than once. */
  async dispose(): Promise<void> {
    await Promise.all([
      this.#embedding.dispose(),
      this.#head.dispose(),
      ...this.#layers.map((layer) => disposeLayer(layer)),
    ]);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  async #branch(
    part: PartSession | undefined,
    name: string,
    input: StreamBatch,
    options: BranchOptions,
  ): Promise<BranchResult> {
    if (part === undefined) {
      throw new UsageError('PARTS_NO_BRANCH', `There is no ${name}.`, {
        expected: 'a branch that the layer has',
        hint: 'A parallel block has its FFN in the attention branch.',
      });
    }
    const asked = options.taps ?? [];
    const unknown = asked.find((tap) => !part.taps.has(tap));
    if (unknown !== undefined) {
      throw new UsageError('PARTS_TAP', `The ${name} does not give out "${unknown}".`, {
        expected: `one of the declared: ${[...part.taps].join(', ') || 'none'}`,
        hint: 'Declare it with `taps` when the parts are opened.',
      });
    }
    const [batch, sequence] = input.dims;
    const results = await part.run({
      ids: Array.from({ length: batch }, () => Array.from({ length: sequence }, () => 0)),
      cut: { [STREAM_INPUT]: { type: 'float32', dims: input.dims, data: input.data } },
      fetches: [STREAM_OUTPUT, ...asked],
      signal: this.#signal(options),
    });
    const data = asFloat32(results[STREAM_OUTPUT] as TensorValue, STREAM_OUTPUT);
    requireFinite(data, part.label);
    return {
      contribution: { data, dims: input.dims },
      taps: Object.fromEntries(asked.map((tap) => [tap, results[tap] as TensorValue])),
    };
  }

  #layer(j: number): LayerSessions {
    const layer = this.#layers[j];
    if (layer !== undefined) return layer;
    throw new UsageError('PARTS_NO_BRANCH', `There is no layer ${j}.`, {
      expected: `0 to ${this.#layers.length - 1}`,
      found: String(j),
    });
  }

  #sessions(models: LayerModels): LayerSessions {
    return {
      attention: models.attention && this.#session(models.attention),
      ffn: models.ffn && this.#session(models.ffn),
    };
  }

  #session(part: PartModel): PartSession {
    return new PartSession(part, this.#tokens, partOptions(this.#options, LAYER_CONFIG));
  }

  #signal(options: PartsRunOptions): AbortSignal | undefined {
    return options.signal ?? this.#options.signal;
  }
}

/** What the user set comes before what is set here. */
function partOptions(options: PartsOptions, config: Readonly<Record<string, string>>): SessionOptions {
  return { ...options.session, config: { ...config, ...options.session?.config } };
}

async function disposeLayer(layer: LayerSessions): Promise<void> {
  await Promise.all([layer.attention?.dispose(), layer.ffn?.dispose()]);
}

function tokensInput(model: Model, anatomy: Anatomy): ValueInfo {
  const info = model.graph.feeds.find(({ name }) => name === anatomy.tokens);
  const shape = (info && shapeOf(info)) ?? ['batch', 'sequence'];
  return { name: anatomy.tokens, elementType: 'int64', shape: shape.map((size) => size ?? '') };
}
