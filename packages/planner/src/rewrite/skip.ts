import { AnatomyError, UsageError } from '@cqil/core';
import { type Anatomy, analyze, type LayerAnatomy } from '../anatomy/index.js';
import type { Model } from '../onnx/index.js';
import { GraphEdit } from './graph-edit.js';
import { Names } from './names.js';
import { lastBranch, plainNorm } from './skip-norm.js';
import { dropUnreadWeights, readValues } from './unread-weights.js';

/**
 * Leaves layers out of a decoder graph: what a layer would give is what it was given. This is layer removal, the
 * baseline that layers in parallel are compared with ("ShortGPT", arXiv 2403.03853).
 *
 * The cache of a layer that is left out goes from the graph's inputs and outputs, and the other layers' keep their names:
 * decoders that pair inputs with outputs (`DecoderSession`) run the result with the cache as they do the original, while
 * programs that count layers (Transformers.js, ONNX Runtime GenAI) need the count in their configuration changed and no
 * gaps in the names. Where exporters read the length of the sequence off the cache of a layer that is left out, that of
 * the first one left is read instead.
 *
 * Requires: a graph that `analyze` understands. Ensures: nodes and weights of the other layers as they were, those of
 * the layers left out gone; new nodes are named `/cqil/skip.<layer>/…`. The given model is not changed.
 *
 * @param layers 0-based, in any order
 * @throws UsageError `SKIP_LAYERS` for layers that the model does not have, or all of them; AnatomyError
 *   `SKIP_STATE_READ` where the graph gives a state of the stream that would be gone; what `analyze` throws
 */
export function skipLayers(source: Model, layers: readonly number[]): Model {
  const model = source.clone();
  const anatomy = analyze(model);
  const skipped = new Set(layers);
  checkLayers(anatomy, skipped);
  if (skipped.size === 0) return model;
  const leftOut = anatomy.layers.filter(({ index }) => skipped.has(index));
  checkOutputs(model, leftOut);

  const readBefore = readValues(model);
  const edit = new GraphEdit(model.graph);
  const names = new Names(model);
  // Of neighbours that all go, each gives what the first was given.
  let input: string | undefined;
  for (const layer of anatomy.layers) {
    if (!skipped.has(layer.index)) {
      input = undefined;
      continue;
    }
    input ??= layer.input;
    passThrough(edit, names, layer, input);
  }
  takeCachesAway(model, edit, anatomy, skipped);
  edit.apply();
  dropUnreadWeights(model, readBefore);
  return model;
}

function checkLayers({ layers }: Anatomy, skipped: ReadonlySet<number>): void {
  const unknown = [...skipped].filter((index) => layers[index] === undefined);
  if (unknown.length === 0 && skipped.size < layers.length) return;
  throw new UsageError('SKIP_LAYERS', 'These layers cannot be left out.', {
    expected: `some of the layers 0 to ${layers.length - 1}, not all`,
    found: unknown.length === 0 ? 'all of them' : unknown.join(', '),
  });
}

/** States of the stream inside and behind the layer no longer exist. */
function checkOutputs(model: Model, leftOut: readonly LayerAnatomy[]): void {
  const outputs = new Set(model.graph.outputs.map(({ name }) => name));
  for (const { index, attention, ffn } of leftOut) {
    const lost = [attention, ffn]
      .flatMap((branch) => (branch === undefined ? [] : [branch.add.sum, branch.add.carried]))
      .find((value) => outputs.has(value));
    if (lost === undefined) continue;
    throw new AnatomyError('SKIP_STATE_READ', `Layer ${index} cannot be left out.`, {
      expected: 'a graph that gives logits and caches only',
      found: `its hidden state "${lost}" is an output of the graph`,
      hint: 'Export the model without hidden states.',
    });
  }
}

/** Whoever reads the layer's output, plain or normalised, reads `input`. */
function passThrough(edit: GraphEdit, names: Names, layer: LayerAnatomy, input: string): void {
  const { add } = lastBranch(layer);
  const norm = add.fused ? [plainNorm(add.node, input, names.fresh(`/cqil/skip.${layer.index}/norm`))] : [];
  edit.replace(add.node, norm);
  edit.read(add.sum, input);
  edit.read(add.carried, input);
}

function takeCachesAway(model: Model, edit: GraphEdit, anatomy: Anatomy, skipped: ReadonlySet<number>): void {
  const { graph } = model;
  const going = new Set<string>();
  for (const { cache } of anatomy.layers.filter(({ index }) => skipped.has(index))) {
    for (const name of [...cache.inputs, ...cache.outputs]) going.add(name);
    const other = anatomy.layers.find(
      (layer) => !skipped.has(layer.index) && layer.cache.inputs.length === cache.inputs.length,
    );
    for (const [place, name] of cache.inputs.entries()) {
      const instead = other?.cache.inputs[place];
      if (instead !== undefined) edit.read(name, instead);
    }
  }
  graph.inputs = graph.inputs.filter(({ name }) => !going.has(name));
  graph.outputs = graph.outputs.filter(({ name }) => !going.has(name));
}
