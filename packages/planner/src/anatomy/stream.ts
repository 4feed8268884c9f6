import { AnatomyError } from '@cqil/core';
import { describeNode, elementType, type Graph, isFloatType } from '../onnx/index.js';
import { type Dataflow, type Operation, postDominators } from './dataflow.js';
import type { ResidualAdd } from './types.js';

/** Operations that carry the stream on without changing what it means; OPT folds batch and sequence for its FFN. */
const CARRIERS = new Set(['Cast', 'Flatten', 'Identity', 'Reshape', 'Squeeze', 'Unsqueeze']);
const SUMS = new Set(['Add', 'Sum']);

export interface Stream {
  readonly tokens: string;
  readonly logits: string;
  /** The stream's value before the first sum. */
  readonly start: string;
  readonly adds: readonly ResidualAdd[];
}

/**
 * Finds the residual stream: the chain of values that everything between the embedding and the logits passes.
 *
 * On the way from the tokens to the logits these are the post-dominators of the embedding; each that adds
 * something computed from the one before it is a step of the stream. No names are looked at.
 *
 * @throws AnatomyError `ANATOMY_NO_LOGITS`, `ANATOMY_NO_TOKENS`, `ANATOMY_NO_STREAM`, `ANATOMY_STREAM_BROKEN`,
 *   `ANATOMY_ENTANGLED`, `ANATOMY_MERGED`
 */
export function findStream(graph: Graph, dataflow: Dataflow): Stream {
  const logits = findLogits(graph);
  const sink = dataflow.producer(logits);
  if (sink === undefined) throw noStream(`no node makes "${logits}"`);
  if (sink.op === 'If') {
    throw new AnatomyError('ANATOMY_MERGED', 'The graph holds two decoders behind one switch.', {
      expected: 'one decoder graph with a KV cache',
      found: `${describeNode(sink.node)}, which chooses between two graphs`,
      hint: 'Export the model without merging (in Optimum: a current version, or --no-post-process).',
    });
  }
  const toLogits = dataflow.reaching([logits]);
  const candidates = startValues(graph, dataflow, toLogits);
  const found = candidates
    .map(({ tokens, value }) => ({ tokens, ...walk(dataflow, toLogits, sink, value) }))
    .reduce((best, next) => (next.adds.length > best.adds.length ? next : best));
  if (found.adds.length === 0) throw found.broken ?? noStream('no sum that all paths to the logits pass');
  if (found.broken !== undefined) throw found.broken;
  return { tokens: found.tokens, logits, start: found.start, adds: found.adds };
}

function findLogits(graph: Graph): string {
  const floats = graph.outputs.filter((output) => isFloatType(elementType(output) ?? 0));
  const named = floats.find((output) => output.name === 'logits');
  // Other names: the logits are the first output of every exporter known; the cache's outputs follow.
  const logits = named ?? (floats[0] === graph.outputs[0] ? floats[0] : undefined);
  if (logits === undefined) {
    throw new AnatomyError('ANATOMY_NO_LOGITS', 'The graph gives no next-token logits.', {
      expected: 'a decoder language model with an output "logits"',
      found: `outputs ${list(graph.outputs.map((output) => output.name))}`,
      hint: 'Encoders, image and audio models cannot be planned; give a text-generation model.',
    });
  }
  return logits.name;
}

/** Where the stream may begin: what is computed first from an input of token ids, or an input of embeddings. */
function startValues(
  graph: Graph,
  dataflow: Dataflow,
  toLogits: ReadonlySet<Operation>,
): { tokens: string; value: string }[] {
  const starts: { tokens: string; value: string }[] = [];
  for (const input of graph.feeds) {
    if (isFloatType(elementType(input) ?? 0)) {
      if (!/embed/i.test(input.name)) continue;
      starts.push({ tokens: input.name, value: input.name });
      continue;
    }
    for (const consumer of dataflow.consumers(input.name)) {
      if (!toLogits.has(consumer)) continue;
      for (const output of consumer.outputs) starts.push({ tokens: input.name, value: output });
    }
  }
  if (starts.length === 0) {
    throw new AnatomyError('ANATOMY_NO_TOKENS', 'No input of token ids reaches the logits.', {
      expected: 'an input such as "input_ids" that an embedding is looked up with',
      found: `inputs ${list(graph.feeds.map((input) => input.name))}`,
      hint: 'Image and audio models cannot be planned; give a text-generation model.',
    });
  }
  return starts;
}

interface Walk {
  readonly start: string;
  readonly adds: readonly ResidualAdd[];
  readonly broken: AnatomyError | undefined;
}

function walk(dataflow: Dataflow, toLogits: ReadonlySet<Operation>, sink: Operation, from: string): Walk {
  const dependent = dataflow.reachableFrom([from]);
  const relevant = new Set([...dependent].filter((operation) => toLogits.has(operation)));
  if (!relevant.has(sink)) return { start: from, adds: [], broken: undefined };
  const parents = postDominators(dataflow, relevant, sink);
  const chain = chainFrom(dataflow, relevant, parents, from);

  const adds: ResidualAdd[] = [];
  let start = from;
  let carried = from;
  let interrupted: Operation | undefined;
  let broken: AnatomyError | undefined;
  for (const operation of chain) {
    const [output] = operation.outputs;
    if (output === undefined) break;
    const step = residualSum(dataflow, relevant, operation, carried);
    if (step !== undefined) {
      if (interrupted !== undefined && adds.length > 0) broken ??= streamBroken(interrupted, operation);
      if (step.entangled !== undefined) broken ??= entangled(step.entangled, operation);
      if (adds.length === 0) start = carried;
      interrupted = undefined;
      adds.push({
        node: operation.node,
        fused: operation.kind === 'skip-sum',
        skip: carried,
        contributions: step.contributions,
        sum: output,
        carried: output,
        carriers: [],
      });
    } else if (CARRIERS.has(operation.op) && operation.inputs[0] === carried && interrupted === undefined) {
      const last = adds.pop();
      if (last !== undefined) {
        adds.push({ ...last, carried: output, carriers: [...last.carriers, operation.node] });
      }
    } else {
      interrupted ??= operation;
    }
    carried = output;
  }
  return { start, adds, broken };
}

/** The post-dominators of a value, in order. */
function chainFrom(
  dataflow: Dataflow,
  relevant: ReadonlySet<Operation>,
  parents: ReadonlyMap<Operation, Operation | undefined>,
  value: string,
): Operation[] {
  const readers = dataflow.consumers(value).filter((operation) => relevant.has(operation));
  const [first, ...others] = readers;
  if (first === undefined) return [];
  const above = (operation: Operation): Operation[] => {
    const list: Operation[] = [];
    for (let at: Operation | undefined = operation; at !== undefined; at = parents.get(at)) list.push(at);
    return list;
  };
  return others.reduce((chain, reader) => {
    const shared = new Set(above(reader));
    return chain.filter((operation) => shared.has(operation));
  }, above(first));
}

/**
 * Reads an operation as `previous + contributions`, or gives `undefined`. The sum may be nested, as in
 * `(x + attention) + ffn`; a nested sum that anything else reads is a state of the stream itself, which
 * something further on reads past the sums between ("entangled").
 */
function residualSum(
  dataflow: Dataflow,
  relevant: ReadonlySet<Operation>,
  operation: Operation,
  previous: string,
): { contributions: string[]; entangled: Operation | undefined } | undefined {
  if (!SUMS.has(operation.op)) return undefined;
  let nested: Operation | undefined;
  const terms = (at: Operation, depth: number): string[] | undefined => {
    if (at.inputs.includes(previous)) {
      const others = [...at.inputs];
      others.splice(others.indexOf(previous), 1);
      return others;
    }
    if (depth === 0) return undefined;
    for (const [index, input] of at.inputs.entries()) {
      const inner = uncarried(dataflow, input);
      if (inner === undefined || !SUMS.has(inner.op) || !relevant.has(inner)) continue;
      const found = terms(inner, depth - 1);
      if (found === undefined) continue;
      if (inner.outputs.some((sum) => dataflow.consumers(sum).length > 1)) nested ??= inner;
      return [...found, ...at.inputs.filter((_, other) => other !== index)];
    }
    return undefined;
  };
  const contributions = terms(operation, MAX_NESTING);
  const changes = contributions?.some((value) => {
    const producer = dataflow.producer(value);
    return producer !== undefined && relevant.has(producer) && dependsOn(dataflow, value, previous);
  });
  return contributions !== undefined && changes === true ? { contributions, entangled: nested } : undefined;
}

/** What computes a value, seen through casts and reshapes: between its two sums a rewritten group may have some. */
function uncarried(dataflow: Dataflow, value: string): Operation | undefined {
  let producer = dataflow.producer(value);
  while (producer !== undefined && CARRIERS.has(producer.op)) {
    producer = dataflow.producer(producer.inputs[0] ?? '');
  }
  return producer;
}

/** Deeper than any block adds up its parts; a chain of whole layers is told apart by `entangled`. */
const MAX_NESTING = 64;

function dependsOn(dataflow: Dataflow, value: string, on: string): boolean {
  const consumers = new Set(dataflow.consumers(on));
  for (const operation of dataflow.reaching([value], (candidate) => candidate === on)) {
    if (consumers.has(operation)) return true;
  }
  return false;
}

function noStream(found: string): AnatomyError {
  return new AnatomyError('ANATOMY_NO_STREAM', 'No residual stream was found in this graph.', {
    expected: 'a decoder whose layers each add to one value between the embedding and the logits',
    found,
    hint: 'Only decoder language models with residual layers can be planned.',
  });
}

function streamBroken(by: Operation, before: Operation): AnatomyError {
  return new AnatomyError(
    'ANATOMY_STREAM_BROKEN',
    'Something changes the residual stream between two layers.',
    {
      expected: 'layers that only add to the stream (pre-norm blocks)',
      found: `${describeNode(by.node)} on the stream, before ${describeNode(before.node)}`,
      hint: 'Blocks that normalise the stream itself (post-norm, as in BERT or OPT-350m) cannot be grouped.',
    },
  );
}

function entangled(inner: Operation, outer: Operation): AnatomyError {
  return new AnatomyError('ANATOMY_ENTANGLED', 'Later layers read values from inside earlier ones.', {
    expected: 'layers that read nothing of each other but the residual stream',
    found: `${describeNode(inner.node)} is read past the sums between it and ${describeNode(outer.node)}`,
    hint: 'Models whose layers share keys and values, or take shortcuts, cannot be grouped yet.',
  });
}

function list(names: readonly string[]): string {
  const shown = names.slice(0, 6).join(', ');
  return names.length > 6 ? `${shown} and ${names.length - 6} more` : shown || 'none';
}
