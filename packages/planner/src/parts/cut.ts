import { AnatomyError, UsageError } from '@cqil/core';
import type { ElementType } from '@cqil/runtime-gpu';
import {
  type Anatomy,
  type BranchAnatomy,
  type LayerAnatomy,
  type ResidualAdd,
  streamValues,
} from '../anatomy/index.js';
import { SubmodelCutter } from '../onnx/extract.js';
import { DataType, intAttribute, type Model, makeNode, makeValueInfo, type Node } from '../onnx/index.js';
import { unfuseSkipNorms } from '../verify/unfuse.js';
import { appendScoring } from './scoring-graph.js';

/** The input of every part but the embedding: a state of the stream, float32, `[batch, sequence, hidden]`. */
export const STREAM_INPUT = '/cqil/parts/stream';
/** What the embedding and the branches give, float32; as many elements as the stream's state. */
export const STREAM_OUTPUT = '/cqil/parts/output';
/** The head's logits, float32, `[batch, sequence, vocabulary]`. */
export const LOGITS_OUTPUT = '/cqil/parts/logits';

/** A part of a decoder as a model of its own. */
export interface PartModel {
  readonly model: Model;
  /** For errors: `layer 3, FFN`. */
  readonly label: string;
  /** The inner values that it gives out besides. */
  readonly taps: readonly string[];
}

export interface LayerModels {
  readonly attention: PartModel | undefined;
  readonly ffn: PartModel | undefined;
}

const STREAM_TYPES: Partial<Record<ElementType, number>> = {
  float32: DataType.FLOAT,
  float16: DataType.FLOAT16,
  float64: DataType.DOUBLE,
};

/**
 * Cuts a decoder into parts that read and give the stream in float32, whatever its type in the graph: casts at the
 * borders belong to the parts, and so do the biases that a fused sum adds.
 */
export class PartCutter {
  readonly #source: Model;
  readonly #anatomy: Anatomy;
  readonly #cutter: SubmodelCutter;
  readonly #producers: ReadonlyMap<string, Node>;

  constructor(model: Model, anatomy: Anatomy) {
    const unfused = unfuseSkipNorms(model);
    this.#source = unfused;
    this.#anatomy = anatomy;
    this.#cutter = new SubmodelCutter(unfused);
    this.#producers = unfused.graph.producers();
  }

  /** Token ids to the stream before the first layer, under its own name and in its own type. */
  embedding(): PartModel {
    const { streamStart, tokens } = this.#anatomy;
    if (!this.#producers.has(streamStart) || tokens !== 'input_ids') {
      throw new AnatomyError('PARTS_NO_TOKENS', 'The model cannot be run from token ids.', {
        expected: 'an input "input_ids" that the embedding is looked up with',
        found: `the stream begins at "${streamStart}", from the input "${tokens}"`,
      });
    }
    return { model: this.#cutter.cut([], [streamStart]), label: 'the embedding', taps: [] };
  }

  /**
   * A layer's branches. In a parallel block `attention` holds both.
   *
   * @param start element type of the stream before the first layer
   * @param taps inner values that the branches are to give out, too
   * @throws UsageError `PARTS_TAP` for a value that no branch of the layer computes; AnatomyError
   *   `PARTS_READS_TOKENS`; ModelFormatError `ONNX_CUT`
   */
  layer(index: number, start: ElementType, taps: readonly string[] = []): LayerModels {
    const layer = this.#anatomy.layers[index] as LayerAnatomy;
    const type = this.#typesAt(streamType(start), index);
    const left = new Set(taps);
    const branch = (part: BranchAnatomy | undefined, name: string, from: string, dataType: number) =>
      part && this.#branch(part, `layer ${index}, ${name}`, from, dataType, left);
    const { attention, ffn } = layer;
    const both = layer.kind === 'parallel' ? 'attention and FFN' : 'attention';
    const models = {
      attention: branch(attention, both, attention?.add.skip ?? '', type.input),
      // Given before the casts and reshapes that carry it to the FFN, which may want it in another type or shape.
      ffn: branch(ffn, 'FFN', attention?.add.sum ?? ffn?.add.skip ?? '', type.input),
    };
    for (const name of left) {
      throw new UsageError('PARTS_TAP', `Layer ${index} does not compute "${name}".`, {
        expected: 'the name of a value inside one of its branches',
        found: this.#producers.has(name) ? 'a value of another part of the graph' : 'no such value',
      });
    }
    return models;
  }

  /** The stream behind the last layer to logits and scores; see `appendScoring`. */
  head(start: ElementType): PartModel {
    const type = this.#typesAt(streamType(start), this.#anatomy.layers.length).input;
    const { streamEnd, logits } = this.#anatomy;
    const model = this.#cut(streamEnd, type, [logits]);
    model.graph.addNode(cast(logits, LOGITS_OUTPUT, DataType.FLOAT));
    // Declared with a rank: what is appended must know that the vocabulary is the last axis.
    model.graph.outputs = [
      makeValueInfo(LOGITS_OUTPUT, DataType.FLOAT, ['cut_batch', 'cut_seq', 'cut_vocabulary']),
    ];
    appendScoring(model, LOGITS_OUTPUT);
    return { model, label: 'the head', taps: [] };
  }

  #branch(
    branch: BranchAnatomy,
    label: string,
    from: string,
    dataType: number,
    taps: Set<string>,
  ): PartModel {
    const { contributions } = branch.add;
    const computed = contributions.filter((name) => this.#producers.has(name));
    const model = this.#cut(from, dataType, computed);
    this.#refuseTokens(model, label);
    const { graph } = model;
    const values = new Set(graph.nodes.flatMap((node) => node.output));
    const mine = [...taps].filter((name) => values.has(name));
    for (const name of mine) taps.delete(name);
    const declared = this.#cut(from, dataType, [...computed, ...mine]).graph.outputs;

    let sum: string | undefined;
    for (const [i, name] of contributions.entries()) {
      const constant = this.#source.graph.initializers.get(name);
      if (constant !== undefined) graph.initializers.set(name, constant);
      const term = `/cqil/parts/term.${i}`;
      graph.addNode(cast(name, term, DataType.FLOAT));
      if (sum !== undefined) {
        const next = `/cqil/parts/sum.${i}`;
        graph.addNode(makeNode('Add', [sum, term], [next], { name: next }));
        sum = next;
      } else sum = term;
    }
    graph.addNode(makeNode('Identity', [sum as string], [STREAM_OUTPUT], { name: STREAM_OUTPUT }));
    graph.outputs = [
      makeValueInfo(STREAM_OUTPUT, DataType.FLOAT, []),
      ...declared.filter(({ name }) => mine.includes(name)),
    ];
    // Of unknown rank: some graphs fold batch and sequence into one.
    const type = graph.outputs[0]?.type?.value;
    if (type?.case === 'tensorType') delete type.value.shape;
    return { model, label, taps: mine };
  }

  #cut(from: string, dataType: number, outputs: readonly string[]): Model {
    const shape = ['cut_batch', 'cut_seq', 'cut_hidden'];
    const sameShape = new Map<string, string>();
    for (const value of streamValues(this.#anatomy)) if (value !== from) sameShape.set(value, from);
    const model = this.#cutter.cut([{ name: from, dataType, shape }], outputs, { sameShape });
    const { graph } = model;
    graph.inputs = graph.inputs.filter(({ name }) => name !== from);
    graph.inputs.unshift(makeValueInfo(STREAM_INPUT, DataType.FLOAT, shape));
    graph.nodes.unshift(cast(STREAM_INPUT, from, dataType));
    return model;
  }

  /** A branch that reads the ids themselves cannot be run from a state of the stream alone. */
  #refuseTokens(model: Model, label: string): void {
    const { tokens } = this.#anatomy;
    const carried = new Set([tokens]);
    for (const node of model.graph.nodes) {
      if (node.opType === 'Shape' || node.opType === 'Size') continue;
      if (!node.input.some((input) => carried.has(input))) continue;
      for (const output of node.output) carried.add(output);
    }
    const reads = model.graph.outputs.find(({ name }) => carried.has(name));
    if (reads === undefined) return;
    throw new AnatomyError('PARTS_READS_TOKENS', `Part of this model reads token ids: ${label}.`, {
      expected: 'layers that read nothing but the residual stream',
      found: `"${reads.name}" depends on the input "${tokens}"`,
      hint: 'Use this model in another number format.',
    });
  }

  /** The stream's element type before layer `index`, given that before the first. */
  #typesAt(start: number, index: number): { input: number } {
    let type = start;
    for (const { attention, ffn } of this.#anatomy.layers.slice(0, index)) {
      for (const branch of [attention, ffn]) type = branch ? carriedType(branch.add, type) : type;
    }
    return { input: type };
  }
}

/** The element type behind the casts that follow a residual sum. */
function carriedType(add: ResidualAdd, type: number): number {
  const casts = add.carriers.filter((node) => node.opType === 'Cast');
  const last = casts.at(-1);
  return (last && intAttribute(last, 'to')) ?? type;
}

function streamType(type: ElementType): number {
  const known = STREAM_TYPES[type];
  if (known !== undefined) return known;
  throw new AnatomyError('PARTS_STREAM_TYPE', 'The residual stream is not in floating point.', {
    expected: Object.keys(STREAM_TYPES).join(', '),
    found: type,
  });
}

function cast(from: string, to: string, dataType: number): Node {
  return makeNode('Cast', [from], [to], { name: to, attributes: { to: { int: dataType } } });
}
