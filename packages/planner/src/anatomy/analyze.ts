import { AnatomyError } from '@cqil/core';
import {
  DataType,
  describeNode,
  elementType,
  type Graph,
  isFloatType,
  type Model,
  shapeOf,
} from '../onnx/index.js';
import { branchOperations, describeBranch } from './branch.js';
import { Dataflow, type Operation } from './dataflow.js';
import { findStream, type Stream } from './stream.js';
import type { Anatomy, BranchAnatomy, CacheAnatomy, LayerAnatomy, LayerKind, ResidualAdd } from './types.js';

interface Step {
  readonly add: ResidualAdd;
  readonly operations: ReadonlySet<Operation>;
  readonly branch: BranchAnatomy;
  readonly cache: CacheAnatomy;
  /** Whether a part of what is added does not depend on the cache: the FFN of a parallel block. */
  readonly hasPlainPart: boolean;
}

/**
 * Finds the layers of a decoder graph and their parts by following its residual stream; names are not needed.
 *
 * @throws AnatomyError when the graph is no decoder or its layers cannot be told apart; the error names the
 *   node, what was expected and what was found
 */
export function analyze(model: Model): Anatomy {
  const { graph } = model;
  const dataflow = new Dataflow(graph);
  const stream = findStream(graph, dataflow);
  const states = stateInputs(graph, dataflow, stream);
  const outputs = cacheOutputs(graph, dataflow, stream, states);
  const steps = stream.adds.map((add) => describeStep(dataflow, states, outputs.get(add) ?? [], add));
  if (!steps.some(usesCache)) {
    throw new AnatomyError('ANATOMY_NO_CACHE', 'The graph has no KV cache.', {
      expected: 'a decoder with past keys and values as inputs and present ones as outputs',
      found: 'none that belongs to a layer',
      hint: 'Encoders cannot be planned. Export a decoder with its cache (task text-generation-with-past).',
    });
  }
  return {
    layers: joinLayers(graph, steps),
    streamStart: stream.start,
    streamEnd: stream.adds.at(-1)?.carried ?? stream.start,
    tokens: stream.tokens,
    logits: stream.logits,
  };
}

function describeStep(
  dataflow: Dataflow,
  states: readonly string[],
  outputs: readonly string[],
  add: ResidualAdd,
): Step {
  const operations = branchOperations(dataflow, add);
  const inputs = statesRead(dataflow, states, add.contributions, add.skip);
  if (inputs.length > 0 && outputs.length === 0) throw crossAttention(add, inputs[0] as string);
  const hasPlainPart = addends(dataflow, add).some(
    (part) =>
      dependsOnStream(dataflow, operations, part) &&
      statesRead(dataflow, states, [part], add.skip).length === 0,
  );
  const branch = describeBranch(dataflow, add, operations);
  return { add, operations, branch, cache: { inputs, outputs }, hasPlainPart };
}

function crossAttention(add: ResidualAdd, input: string): AnatomyError {
  return new AnatomyError(
    'ANATOMY_CROSS_ATTENTION',
    'A layer reads an input that it gives nothing back for.',
    {
      expected: 'layers that read token ids, masks, positions and their own cache',
      found: `${describeNode(add.node)} depends on input "${input}"`,
      hint: 'Decoders of encoder-decoder models (T5, Whisper) cannot be planned.',
    },
  );
}

function usesCache(step: Step): boolean {
  return step.cache.inputs.length > 0 || step.cache.outputs.length > 0;
}

/** The terms of a contribution, nested sums taken apart: `attention + ffn` in some parallel blocks. */
function addends(dataflow: Dataflow, add: ResidualAdd): string[] {
  return add.contributions.flatMap((value) => {
    const producer = dataflow.producer(value);
    return producer?.op === 'Add' ? [...producer.inputs] : [value];
  });
}

function dependsOnStream(dataflow: Dataflow, operations: ReadonlySet<Operation>, value: string): boolean {
  const producer = dataflow.producer(value);
  return producer !== undefined && operations.has(producer);
}

/** Element types in which caches are kept: floating point, or quantised to 8 bits and less. */
function isStateType(type: number): boolean {
  return isFloatType(type) || type === DataType.INT8 || type === DataType.UINT8;
}

/**
 * The graph inputs that are layers' caches.
 *
 * @throws AnatomyError `ANATOMY_CROSS_ATTENTION` for an input of another kind, such as an encoder's output
 */
function stateInputs(graph: Graph, dataflow: Dataflow, stream: Stream): string[] {
  const candidates = graph.feeds.filter(
    (input) => input.name !== stream.tokens && isStateType(elementType(input) ?? 0),
  );
  const names = candidates.map((input) => input.name);
  const readers = new Map<string, ResidualAdd[]>();
  for (const add of stream.adds) {
    for (const name of statesRead(dataflow, names, add.contributions, add.skip)) {
      readers.set(name, [...(readers.get(name) ?? []), add]);
    }
  }
  return candidates.flatMap((input) => {
    const [first, ...others] = readers.get(input.name) ?? [];
    if (first === undefined) return [];
    if (others.length === 0) return [input.name];
    // Of what several layers read, a mask ends in an axis of positions, an encoder's output in one of features.
    if (typeof shapeOf(input)?.at(-1) === 'number') throw crossAttention(first, input.name);
    return [];
  });
}

/** Those of the graph inputs `states` that values depend on without passing the stream. */
function statesRead(
  dataflow: Dataflow,
  states: readonly string[],
  values: readonly string[],
  skip: string,
): string[] {
  const operations = dataflow.reaching(values, (value) => value === skip);
  const read = new Set([...operations].flatMap((operation) => dataflow.dataInputs(operation)));
  return states.filter((name) => name !== skip && read.has(name));
}

/**
 * Graph outputs by the step that computes them: the one step whose branch a walk back from them meets. In a graph
 * with caches as inputs only what is computed from one of them is a cache: another output, such as a state of the
 * stream, normalised, is not.
 */
function cacheOutputs(
  graph: Graph,
  dataflow: Dataflow,
  stream: Stream,
  states: readonly string[],
): Map<ResidualAdd, readonly string[]> {
  const bySkip = new Map(stream.adds.map((add) => [add.skip, add]));
  const ends = new Set(stream.adds.flatMap((add) => [add.sum, add.carried]));
  const owned = new Map<ResidualAdd, string[]>();
  for (const { name } of graph.outputs) {
    if (name === stream.logits) continue;
    const met = new Set<string>();
    const operations = dataflow.reaching([name], (value) => {
      if (!bySkip.has(value) && !ends.has(value)) return false;
      met.add(value);
      return true;
    });
    const [state] = met;
    const add = state === undefined ? undefined : bySkip.get(state);
    // A state of the stream that is itself an output belongs to no layer's cache.
    if (met.has(name) || met.size !== 1 || add === undefined) continue;
    const read = new Set([...operations].flatMap((operation) => dataflow.dataInputs(operation)));
    if (states.length > 0 && !states.some((input) => read.has(input))) continue;
    const list = owned.get(add);
    if (list === undefined) owned.set(add, [name]);
    else list.push(name);
  }
  return owned;
}

function joinLayers(graph: Graph, steps: readonly Step[]): LayerAnatomy[] {
  const layers: LayerAnatomy[] = [];
  for (let at = 0; at < steps.length; ) {
    const step = steps[at] as Step;
    const next = steps[at + 1];
    if (!usesCache(step)) {
      layers.push(makeLayer(graph, layers.length, 'ffn-only', undefined, step));
      at += 1;
    } else if (!step.hasPlainPart && next !== undefined && !usesCache(next)) {
      layers.push(makeLayer(graph, layers.length, 'sequential', step, next));
      at += 2;
    } else {
      const kind = step.hasPlainPart ? 'parallel' : 'attention-only';
      layers.push(makeLayer(graph, layers.length, kind, step, undefined));
      at += 1;
    }
  }
  return layers;
}

function makeLayer(
  graph: Graph,
  index: number,
  kind: LayerKind,
  attention: Step | undefined,
  ffn: Step | undefined,
): LayerAnatomy {
  const first = (attention ?? ffn) as Step;
  const last = (ffn ?? attention) as Step;
  return {
    index,
    kind,
    input: first.add.skip,
    output: last.add.carried,
    attention: attention?.branch,
    ffn: ffn?.branch,
    cache: attention?.cache ?? { inputs: [], outputs: [] },
    ungroupable: whyUngroupable(graph, [attention, ffn]),
  };
}

/** States of the stream inside a group no longer exist, so nobody outside may ask for them. */
function whyUngroupable(graph: Graph, steps: readonly (Step | undefined)[]): string | undefined {
  const outputs = new Set(graph.outputs.map((output) => output.name));
  for (const step of steps) {
    if (step === undefined) continue;
    const exposed = [step.add.skip, step.add.sum, step.add.carried].find((value) => outputs.has(value));
    if (exposed !== undefined) return `the graph gives its hidden state "${exposed}" as an output`;
  }
  return undefined;
}
