import { ModelFormatError, UsageError } from '@cqil/core';
import { z } from 'zod';
import type { Anatomy, LayerAnatomy } from '../../anatomy/index.js';
import {
  elementType,
  intAttribute,
  type Model,
  makeValueInfo,
  type Node,
  shapeOf,
  type ValueInfo,
} from '../../onnx/index.js';
import { renameInputs } from '../graph-edit.js';
import { Names } from '../names.js';
import { parseJson } from './metadata.js';
import { Emitter } from './product.js';

/**
 * The cache at a wide model's border:
 * - `layers`: one pair for each original layer, under its name
 * - `merged`: one pair for each step that has one, numbered in order; that of a wide layer has all members' heads
 */
export type CacheForm = 'layers' | 'merged';

/** Under which key a model's ONNX metadata lists its cache, where that is not one pair for each original layer. */
export const KV_METADATA_KEY = 'cqil.kv';

const schema = z.array(
  z.strictObject({
    /** The original layers whose keys and values it holds, in the order of their heads. */
    layers: z.array(z.int().min(0)).min(1),
    /** Heads of each of these layers, in axis 1. */
    heads: z.array(z.int().min(1)).min(1),
    /** In the order of the original layer's: key, value. */
    inputs: z.array(z.string().min(1)),
    outputs: z.array(z.string().min(1)),
  }),
);

/** One layer's cache, or that of several. */
export type CacheEntry = z.infer<typeof schema>[number];

/** @throws ModelFormatError `KV_METADATA` */
export function cacheEntries(model: Model): CacheEntry[] | undefined {
  const text = model.metadata(KV_METADATA_KEY);
  if (text === undefined) return undefined;
  const parsed = schema.safeParse(parseJson(text));
  if (parsed.success) return parsed.data;
  throw new ModelFormatError('KV_METADATA', 'What the model says of its cache cannot be read.', {
    expected: `a JSON list of { layers, heads, inputs, outputs } under "${KV_METADATA_KEY}"`,
    found: text.slice(0, 120),
    hint: 'The model was changed after it was written; write it again.',
  });
}

/** Axis of the heads in `[batch, heads, sequence, head size]`. */
const HEADS = 1;

/**
 * Gives each of the given runs of layers one cache instead of one for each layer, and numbers all caches anew. Where a
 * wide attention read its members' pasts put together, it now reads the input itself, and gives the output itself, so
 * that an engine can let it write in place.
 *
 * @param anatomy of the original
 * @param merged runs of layers
 * @throws UsageError `KV_NAMES` where caches are not named by their layer's number, or are not `[batch, heads, sequence, size]`
 */
export function mergeCaches(
  model: Model,
  anatomy: Anatomy,
  merged: readonly { readonly layers: readonly number[] }[],
): void {
  const runs = cacheRuns(anatomy, merged);
  const border = new Border(model);
  const entries = runs.map((layers, index): CacheEntry => {
    const rename = (layer: LayerAnatomy, name: string) => numbered(name, layer.index, index);
    const first = layers[0] as LayerAnatomy;
    for (const layer of layers)
      for (const name of [...layer.cache.inputs, ...layer.cache.outputs]) rename(layer, name);
    const parts = (of: 'inputs' | 'outputs', k: number) => layers.map(({ cache }) => cache[of][k] as string);
    const inputs = first.cache.inputs.map((name, k) => border.input(parts('inputs', k), rename(first, name)));
    const outputs = first.cache.outputs.map((name, k) =>
      border.output(parts('outputs', k), rename(first, name)),
    );
    return {
      layers: layers.map(({ index }) => index),
      heads: border.heads(parts('inputs', 0)),
      inputs,
      outputs,
    };
  });
  border.apply();
  model.setMetadata(KV_METADATA_KEY, JSON.stringify(entries));
}

/**
 * The inverse: a copy with one pair for each original layer, put together in front of wide layers and cut apart behind
 * them. The same model where nothing was merged.
 *
 * @throws ModelFormatError `KV_METADATA` where what is declared does not fit the model or the original
 */
export function splitCaches(model: Model, original: Model, anatomy: Anatomy): Model {
  const entries = cacheEntries(model);
  if (entries === undefined) return model;
  const copy = model.clone();
  const emitter = new Emitter(copy, new Names(copy), '/cqil/kv');
  const names = new Map<string, string>();
  const infos = new Map(
    [...original.graph.inputs, ...original.graph.outputs].map((info) => [info.name, info]),
  );
  const tail: Node[] = [];
  for (const entry of entries) {
    const layers = entry.layers.map((index) => anatomy.layers[index]);
    for (const side of ['inputs', 'outputs'] as const) {
      for (const [k, name] of entry[side].entries()) {
        const parts = layers.map((layer) => layer?.cache[side][k] ?? '');
        const own = copy.graph[side].find((info) => info.name === name);
        checkEntry(
          entry,
          own,
          parts.map((part) => infos.get(part)),
          name,
        );
        if (parts.length === 1) {
          names.set(name, parts[0] as string);
          continue;
        }
        const inner = emitter.fresh(`${side}/${name}`);
        names.set(name, inner);
        copy.graph.valueInfo.push(
          makeValueInfo(inner, elementType(own as ValueInfo) as number, namedDims(own as ValueInfo, inner)),
        );
        if (side === 'inputs') {
          const value = emitter.concat(`past/${name}`, parts, HEADS);
          (emitter.nodes.at(-1) as Node).output = [inner];
          names.set(value, inner);
        } else {
          emitter.split(`present/${name}`, inner, HEADS, entry.heads, parts);
          tail.push(emitter.nodes.pop() as Node);
        }
      }
    }
  }
  const listed = new Set(entries.flatMap(({ layers }) => layers));
  const missing = anatomy.layers.find(({ index, cache }) => cache.inputs.length > 0 && !listed.has(index));
  if (missing !== undefined) throw notDeclared(`the cache of layer ${missing.index}`, 'none that holds it');
  renameAll(copy, names);
  copy.graph.nodes = [...emitter.nodes, ...copy.graph.nodes, ...tail];
  const kept = (side: 'inputs' | 'outputs') => {
    const cached = new Set(anatomy.layers.flatMap(({ cache }) => cache[side]));
    const before = new Set(entries.flatMap((entry) => entry[side]));
    const own = new Map(
      copy.graph[side].filter(({ name }) => !before.has(name)).map((info) => [info.name, info]),
    );
    // In the original's order, which is part of its interface.
    const ordered = original.graph[side].flatMap((info) => {
      const mine = cached.has(info.name) ? info : own.get(info.name);
      own.delete(info.name);
      return mine === undefined ? [] : [mine];
    });
    return [...ordered, ...own.values()];
  };
  copy.graph.inputs = kept('inputs');
  copy.graph.outputs = kept('outputs');
  return copy;
}

function checkEntry(
  entry: CacheEntry,
  own: ValueInfo | undefined,
  parts: readonly (ValueInfo | undefined)[],
  name: string,
): void {
  const heads = own === undefined ? undefined : shapeOf(own)?.[HEADS];
  const expected = parts.map((part) => (part === undefined ? undefined : shapeOf(part)?.[HEADS]));
  if (own === undefined) throw notDeclared(`an input or output "${name}"`, 'none');
  if (expected.some((count) => count === undefined))
    throw notDeclared('layers that the original has', `${entry.layers.join(', ')}`);
  const sum = entry.heads.reduce((a, b) => a + b, 0);
  const fits = entry.heads.length === parts.length && (parts.length === 1 || heads === sum);
  if (!fits || (parts.length > 1 && entry.heads.join() !== expected.join())) {
    throw notDeclared(
      `"${name}" with ${expected.join(' + ')} heads`,
      `${entry.heads.join(' + ')} declared, ${heads} in the graph`,
    );
  }
}

function notDeclared(expected: string, found: string): ModelFormatError {
  return new ModelFormatError('KV_METADATA', 'The model has another cache than it declares.', {
    expected,
    found,
    hint: 'The model was changed after it was written; write it again.',
  });
}

/** Layers with a cache, by the cache that they will have. */
function cacheRuns(
  anatomy: Anatomy,
  merged: readonly { readonly layers: readonly number[] }[],
): LayerAnatomy[][] {
  const runOf = new Map(merged.flatMap(({ layers }) => layers.map((layer) => [layer, layers] as const)));
  return anatomy.layers
    .filter(({ index, cache }) => {
      const first = runOf.get(index)?.[0] ?? index;
      return cache.inputs.length + cache.outputs.length > 0 && first === index;
    })
    .map(({ index }) => (runOf.get(index) ?? [index]).map((layer) => anatomy.layers[layer] as LayerAnatomy));
}

/** `past_key_values.7.key` of layer 7, as the cache of another number. */
function numbered(name: string, layer: number, index: number): string {
  const number = /\d+/.exec(name)?.[0];
  if (number !== undefined && Number(number) === layer) return name.replace(/\d+/, String(index));
  throw new UsageError('KV_NAMES', 'The caches of this model cannot be numbered anew.', {
    expected: `the layer's number, ${layer}, in the names of its cache`,
    found: `"${name}"`,
    hint: 'Keep one pair for each original layer.',
  });
}

/** Collects what becomes of a graph's caches, and does it at once: old and new names overlap. */
class Border {
  readonly #names: Map<string, string> = new Map();
  readonly #infos = {
    inputs: new Map<string, ValueInfo | undefined>(),
    outputs: new Map<string, ValueInfo | undefined>(),
  };
  readonly #removed = new Set<Node>();
  readonly #emitter: Emitter;
  readonly #tail: Node[] = [];
  readonly #consumers: ReadonlyMap<string, readonly Node[]>;
  readonly #producers: ReadonlyMap<string, Node>;

  constructor(readonly model: Model) {
    this.#emitter = new Emitter(model, new Names(model), '/cqil/kv');
    this.#consumers = model.graph.consumers();
    this.#producers = model.graph.producers();
  }

  heads(parts: readonly string[]): number[] {
    return parts.map((name) => this.#headsOf('inputs', name));
  }

  input(parts: readonly string[], name: string): string {
    this.#declare('inputs', parts, name);
    if (parts.length === 1) return name;
    const readers = new Set(parts.flatMap((part) => this.#consumers.get(part) ?? []));
    const joint = [...readers].find(
      (node) => isJoint(node, 'Concat') && node.input.join('\0') === parts.join('\0'),
    );
    if (joint !== undefined) {
      this.#removed.add(joint);
      this.#names.set(joint.output[0] as string, name);
    }
    if (joint !== undefined && readers.size === 1) return name;
    const views = parts.map((part) => this.#emitter.fresh(`past/${part}`));
    for (const [i, part] of parts.entries()) this.#names.set(part, views[i] as string);
    this.#emitter.split(`past/${name}`, name, HEADS, this.heads(parts), views);
    return name;
  }

  output(parts: readonly string[], name: string): string {
    this.#declare('outputs', parts, name);
    if (parts.length === 1) return name;
    const makers = new Set(parts.map((part) => this.#producers.get(part)));
    const [joint] = makers;
    const alone = parts.every((part) => (this.#consumers.get(part) ?? []).length === 0);
    if (
      joint !== undefined &&
      makers.size === 1 &&
      isJoint(joint, 'Split') &&
      joint.output.join('\0') === parts.join('\0') &&
      alone
    ) {
      this.#removed.add(joint);
      this.#names.set(joint.input[0] as string, name);
      return name;
    }
    const views = parts.map((part) => this.#emitter.fresh(`present/${part}`));
    for (const [i, part] of parts.entries()) this.#names.set(part, views[i] as string);
    this.#emitter.concat(`present/${name}`, views, HEADS);
    const node = this.#emitter.nodes.pop() as Node;
    node.output = [name];
    this.#tail.push(node);
    return name;
  }

  apply(): void {
    const { graph } = this.model;
    graph.nodes = graph.nodes.filter((node) => !this.#removed.has(node));
    const renamed = new Set([
      ...this.#names.keys(),
      ...this.#infos.inputs.keys(),
      ...this.#infos.outputs.keys(),
    ]);
    graph.valueInfo = graph.valueInfo.filter(({ name }) => !renamed.has(name));
    renameAll(this.model, this.#names);
    graph.nodes = [...this.#emitter.nodes, ...graph.nodes, ...this.#tail];
    for (const side of ['inputs', 'outputs'] as const) {
      const infos = this.#infos[side];
      graph[side] = graph[side].flatMap((info) => {
        if (!infos.has(info.name)) return [info];
        const merged = infos.get(info.name);
        return merged === undefined ? [] : [merged];
      });
    }
    const read = graph.consumers();
    for (const node of this.#removed) {
      const sizes = node.input[1];
      if (node.opType === 'Split' && sizes !== undefined && !read.has(sizes))
        graph.initializers.delete(sizes);
    }
  }

  /** The first of the parts becomes the whole; the others go. */
  #declare(side: 'inputs' | 'outputs', parts: readonly string[], name: string): void {
    const [first, ...others] = parts as [string, ...string[]];
    const info = this.#info(side, first);
    const shape = namedDims(info, name);
    if (others.length > 0) shape[HEADS] = parts.reduce((sum, part) => sum + this.#headsOf(side, part), 0);
    this.#infos[side].set(first, makeValueInfo(name, elementType(info) as number, shape));
    for (const other of others) this.#infos[side].set(other, undefined);
    if (others.length === 0) this.#names.set(first, name);
  }

  #headsOf(side: 'inputs' | 'outputs', name: string): number {
    const shape = shapeOf(this.#info(side, name));
    const heads = shape?.[HEADS];
    if (shape?.length === 4 && typeof heads === 'number') return heads;
    throw new UsageError('KV_NAMES', `The cache "${name}" cannot be merged with that of another layer.`, {
      expected: 'a shape [batch, heads, sequence, head size] with a fixed number of heads',
      found:
        shape === undefined ? 'a value without a shape' : `[${shape.map((dim) => dim ?? '?').join(', ')}]`,
      hint: 'Keep one pair for each original layer.',
    });
  }

  #info(side: 'inputs' | 'outputs', name: string): ValueInfo {
    return this.model.graph[side].find((info) => info.name === name) as ValueInfo;
  }
}

/** Whether it puts caches together or apart, by heads. */
function isJoint(node: Node, opType: 'Concat' | 'Split'): boolean {
  return node.opType === opType && intAttribute(node, 'axis') === HEADS && node.name.startsWith('/cqil/');
}

function namedDims(info: ValueInfo, name: string): (number | string)[] {
  return (shapeOf(info) ?? []).map((dim, axis) => dim ?? `${name}_${axis}`);
}

/** Gives values other names, all at once. */
function renameAll(model: Model, names: ReadonlyMap<string, string>): void {
  for (const node of model.graph.nodes) {
    renameInputs(node, names);
    node.output = node.output.map((output) => names.get(output) ?? output);
  }
}
