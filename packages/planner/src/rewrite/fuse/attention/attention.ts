import { Dataflow } from '../../../anatomy/dataflow.js';
import { type Anatomy, analyze, type LayerAnatomy } from '../../../anatomy/index.js';
import { Constants } from '../../../linear/constants.js';
import {
  type AttributeValue,
  DataType,
  dataTypeName,
  describeNode,
  makeNode,
  type Node,
} from '../../../onnx/index.js';
import { GraphEdit } from '../../graph-edit.js';
import type { Names } from '../../names.js';
import { trimmed } from '../../skip-norm.js';
import { ConstantValues } from '../constant-values.js';
import { needContribOperators } from '../contrib.js';
import { elementTypes } from '../element-types.js';
import { type FuseContext, type FusePass, Refused, Tally } from '../types.js';
import { type AttentionCore, findCore } from './core.js';
import { type GraphFacts, refuse } from './facts.js';
import { Probe } from './probe.js';
import { type Rotary, RotaryFinder } from './rotary.js';
import { findRows, type Rows } from './rows.js';
import { prepend, SharedInputs } from './shared-inputs.js';

export const DEFAULT_POSITIONS = 8192;

/** What a fused layer is made of, before a node is changed. */
interface FoundAttention {
  readonly core: AttentionCore;
  readonly rotary: Pick<Rotary, 'interleaved' | 'table'> | undefined;
  readonly rows: readonly [Rows, Rows, Rows];
  readonly packed: string | undefined;
}

/**
 * Attention in plain operators (rotary embedding, cache, repeated key and value heads, mask, softmax) →
 * `com.microsoft.GroupQueryAttention`, under the same names of caches and result.
 *
 * Source: the operator's definition in ONNX Runtime's `docs/ContribOperators.md`.
 */
export const fuseAttention: FusePass = async (context) => {
  const { model, options } = context;
  const attention = new Tally('attention');
  const rotary = new Tally('rotary');
  const anatomy = analyze(model);
  if ((model.opsets.get('') ?? 0) < 13) {
    attention.refused('the model', 'operator set 13 or later', `${model.opsets.get('')}`);
    return [attention.report(), rotary.report()];
  }
  const facts = factsOf(context, anatomy);
  const finder = new AttentionFinder(
    facts,
    new RotaryFinder(facts, options.maxPositions ?? DEFAULT_POSITIONS),
    rotary,
    {
      rotary: options.without?.includes('rotary') !== true,
    },
  );
  const found: FoundAttention[] = [];
  for (const layer of anatomy.layers) {
    options.signal?.throwIfAborted();
    options.onProgress?.({
      phase: 'fusing attention',
      done: layer.index,
      total: anatomy.layers.length,
      unit: 'layers',
    });
    await attention.attempt(async () => {
      found.push(await finder.find(layer));
    });
  }
  if (found.length > 0) new Emitter(context, facts, anatomy).emit(found);
  return [attention.report(), rotary.report()];
};

function factsOf({ model, options }: FuseContext, anatomy: Anatomy): GraphFacts {
  const types = elementTypes(model.graph);
  return {
    model,
    dataflow: new Dataflow(model.graph),
    constants: new Constants(model.graph),
    values: new ConstantValues(model.graph),
    types,
    probe: new Probe(model, anatomy, types, options.session ?? {}),
  };
}

class AttentionFinder {
  constructor(
    readonly facts: GraphFacts,
    readonly rotaries: RotaryFinder,
    readonly tally: Tally,
    readonly wanted: { readonly rotary: boolean },
  ) {}

  async find(layer: LayerAnatomy): Promise<FoundAttention> {
    const core = await findCore(this.facts, layer);
    const type = this.facts.types.get(core.query);
    if (type !== DataType.FLOAT && type !== DataType.FLOAT16) {
      throw refuse(describeNode(core.softmax), 'attention in float32 or float16', dataTypeName(type ?? 0));
    }
    const { headSize, kvHeads, heads, hidden } = core;
    const rotation = this.wanted.rotary ? await this.#rotation(core) : undefined;
    const { query, key } = rotation ?? { query: core.query, key: core.key.added };
    const place = { layer, hidden, headSize, kvHeads, heads };
    const { rows, packed } = await findRows(this.facts, place, [query, key, core.value.added]);
    return { core, rotary: rotation?.rotary, rows, packed };
  }

  /** The rotation of queries and keys, where both are rotated in the way that the operator does it. */
  async #rotation(core: AttentionCore) {
    try {
      const { layer, headSize, hidden } = core;
      const query = await this.rotaries.find(layer, core.query, { heads: core.heads, headSize, hidden });
      const key = await this.rotaries.find(layer, core.key.added, { heads: core.kvHeads, headSize, hidden });
      if (query === undefined && key === undefined) return undefined;
      const node = describeNode(core.key.node);
      if (
        query === undefined ||
        key === undefined ||
        query.table.key !== key.table.key ||
        query.interleaved !== key.interleaved
      ) {
        throw refuse(node, 'queries and keys that are rotated alike', 'different rotations');
      }
      if (headSize % 16 !== 0 || query.table.half % 8 !== 0) {
        const found = `a head size of ${headSize}, ${2 * query.table.half} of it rotated`;
        throw refuse(node, 'a head size and a rotated part that are multiples of 16', found);
      }
      this.tally.applied();
      return { query: query.input, key: key.input, rotary: query };
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.tally.refused(error.refusal.node, error.refusal.expected, error.refusal.found);
      return undefined;
    }
  }
}

class Emitter {
  readonly #names: Names;
  readonly #shared: SharedInputs;
  readonly #edit: GraphEdit;

  constructor(
    readonly context: FuseContext,
    readonly facts: GraphFacts,
    anatomy: Anatomy,
  ) {
    const { model, names, options } = context;
    this.#names = names;
    const past = anatomy.layers.flatMap(({ cache }) => cache.inputs)[0] as string;
    this.#shared = new SharedInputs(
      model,
      names,
      facts.probe.roles,
      anatomy.tokens,
      past,
      options.padding ?? 'left',
    );
    this.#edit = new GraphEdit(model.graph);
  }

  emit(found: readonly FoundAttention[]): void {
    for (const attention of found) this.#layer(attention);
    const { model } = this.context;
    this.#edit.apply();
    prepend(model.graph, this.#shared.nodes);
    needContribOperators(model);
  }

  #layer({ core, rotary, rows, packed }: FoundAttention): void {
    const { key, value, exit } = core;
    const prefix = `/fused/layer.${core.layer.index}/attention`;
    const type = this.facts.types.get(core.query) as number;
    const before: Node[] = [];
    const [q, k, v] =
      packed === undefined ? rows.map((entry) => this.#asRows(entry, prefix, before)) : [packed, '', ''];
    const shared = this.#shared;
    const tables = rotary === undefined ? { cos: '', sin: '' } : shared.rotary(rotary.table, type);
    // Rotations are relative, so they are counted from the cache's beginning, padding included. Positions could be given
    // by a tenth input, but ONNX Runtime's CPU kernel takes the first sequence's for all of a batch (1.30).
    const inputs = [
      q as string,
      k as string,
      v as string,
      key.past,
      value.past,
      shared.seqlens(core.rule.window),
      shared.total(),
      tables.cos,
      tables.sin,
      '',
      shared.bias(core.rule.window, type),
    ];
    const attributes: Record<string, AttributeValue> = {
      num_heads: { int: core.heads },
      kv_num_heads: { int: core.kvHeads },
      scale: { float: core.scale },
    };
    if (core.rule.softcap !== undefined) attributes.softcap = { float: core.rule.softcap };
    // As a mask a window means the same in every version; but masks are what not all kernels take.
    if (core.rule.window !== undefined && shared.padding === 'none') {
      attributes.local_window_size = { int: core.rule.window };
    }
    if (rotary !== undefined) {
      attributes.do_rotary = { int: 1 };
      attributes.rotary_interleaved = { int: rotary.interleaved ? 1 : 0 };
    }
    const after: Node[] = [];
    const output = exit.layout === 'rows' ? exit.value : this.#toHeads(exit.value, core, prefix, after);
    const name = this.#names.fresh(`${prefix}/GroupQueryAttention`);
    const node = makeNode('GroupQueryAttention', trimmed(inputs), [output, key.joined, value.joined], {
      name,
      domain: 'com.microsoft',
      attributes,
    });
    this.#edit.replace(key.node, [...before, node]);
    this.#edit.replace(value.node, []);
    this.#edit.replace(exit.node, after);
  }

  /** `[B, H, S, D]` as `[B, S, H · D]`, where it does not come from such a value. */
  #asRows({ value, layout }: Rows, prefix: string, nodes: Node[]): string {
    if (layout === 'rows') return value;
    const transposed = this.#node(nodes, prefix, 'Transpose', [value], { perm: { ints: [0, 2, 1, 3] } });
    return this.#node(nodes, prefix, 'Reshape', [transposed, this.#shape('rows', [0, 0, -1])]);
  }

  /** Brings the operator's `[B, S, H · D]` back to the `[B, H, S, D]` that is read under `value`. */
  #toHeads(value: string, { heads, headSize }: AttentionCore, prefix: string, nodes: Node[]): string {
    const rows = this.#names.fresh(`${prefix}/rows`);
    const split = this.#node(nodes, prefix, 'Reshape', [
      rows,
      this.#shape(`heads_${heads}_${headSize}`, [0, 0, heads, headSize]),
    ]);
    nodes.push(
      makeNode('Transpose', [split], [value], {
        name: this.#names.fresh(`${prefix}/Transpose`),
        attributes: { perm: { ints: [0, 2, 1, 3] } },
      }),
    );
    return rows;
  }

  #shape(name: string, dims: readonly number[]): string {
    return this.#shared.shapeConstant(name, dims);
  }

  #node(
    nodes: Node[],
    prefix: string,
    opType: string,
    inputs: string[],
    attributes: Record<string, AttributeValue> = {},
  ): string {
    const name = this.#names.fresh(`${prefix}/${opType}`);
    const output = this.#names.fresh(`${name}_output_0`);
    nodes.push(makeNode(opType, inputs, [output], { name, attributes }));
    return output;
  }
}
