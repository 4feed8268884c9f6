import { create } from '@bufbuild/protobuf';
import { AnatomyError, type Plan, VerificationError } from '@cqil/core';
import type { Anatomy } from '../anatomy/index.js';
import { type LinearMap, linearMaps } from '../linear/index.js';
import { MapLocator } from '../linear/locate.js';
import { OperatorSetIdProtoSchema } from '../onnx/gen/onnx_pb.js';
import { describeNode, type Model, type Node, nodeInputs } from '../onnx/index.js';
import { cloneNode } from '../onnx/model.js';
import { REFIT_PREFIX, type RefittedMap, refitPrefix, refittedMaps } from '../recover/metadata.js';
import { GraphEdit } from '../rewrite/graph-edit.js';
import { lastBranch } from '../rewrite/skip-norm.js';
import { dropUnreadWeights, readValues } from '../rewrite/unread-weights.js';
import { type WideGroupRecord, wideGroups } from '../rewrite/wide/metadata.js';

/** The original with the matrices that a recovered model declares: what that model is to be held to. */
export interface Refitted {
  readonly model: Model;
  /** By layer and role; none for a model that was not recovered. */
  readonly maps: readonly RefittedMap[];
  /** Weights of the refitted matrices, by their names in both models. */
  readonly weights: ReadonlySet<string>;
}

/** Whether a model declares refitted matrices, or has nodes that are named like them. */
export function hasRefits(model: Model): boolean {
  return declares(model) || model.graph.nodes.some(isRefit);
}

/** Weights that nodes named like refitted matrices read and the original does not have. */
export function weightsOfRefits(original: Model, rewritten: Model): Set<string> {
  const read = rewritten.graph.nodes.filter(isRefit).flatMap(nodeInputs);
  return new Set(read.filter((name) => isOwnWeight(name, original, rewritten)));
}

/**
 * Takes the matrices that a recovered model declares over into a copy of its original.
 *
 * For each declared map the nodes under `/cqil/refit/layer.<j>/<role>/` that make its output are taken. They must
 * begin at the map's input, read nothing else but weights and what the original's own nodes between the two ends read
 * (the shapes that batch and sequence are folded to), and be one affine map of the size that the original has there.
 *
 * @param anatomy of the original
 * @throws VerificationError `RECOVERY_UNKNOWN_MAP` for a declared map that the original does not have;
 *   `RECOVERY_MISSING` where no refitted nodes make its output; `RECOVERY_FOREIGN_INPUT` where they read something
 *   else; `RECOVERY_NOT_A_MATRIX` where they are another thing than one matrix of that size; `RECOVERY_UNDECLARED`
 *   for refitted nodes that belong to no declared map. ModelFormatError `RECOVERY_METADATA`, `WIDE_METADATA`
 */
export function transplantRefits(original: Model, anatomy: Anatomy, rewritten: Model, plan: Plan): Refitted {
  const declared = refittedMaps(rewritten);
  const known = linearMaps(original, anatomy).maps;
  // Those of merged groups are parts of other matrices there.
  const merged = mergedOutputs(wideGroups(rewritten));
  const maps = declared.map((map) => originalMap(map, known)).filter(({ output }) => !merged.has(output));
  const reader = new RefitReader(original, rewritten);
  const taken = maps.map((map) => reader.read(map, inputInGroup(map, anatomy, plan)));
  const all = new Set(taken.flatMap(({ nodes }) => nodes));
  const other = rewritten.graph.nodes.find((node) => isRefit(node) && !all.has(node));
  if (other !== undefined) {
    throw new VerificationError('RECOVERY_UNDECLARED', 'A refitted matrix is declared nowhere.', {
      expected: 'nodes of declared maps only',
      found: describeNode(other),
    });
  }
  const model = original.clone();
  const before = readValues(model);
  const edit = new GraphEdit(model.graph);
  const producers = model.graph.producers();
  const weights = new Set(taken.flatMap((refit) => refit.weights));
  for (const [index, refit] of taken.entries()) {
    const map = maps[index] as LinearMap;
    edit.replace(
      producers.get(map.output) as Node,
      refit.nodes.map((node) => reading(node, refit.input, map)),
    );
  }
  for (const name of weights) model.graph.addInitializer(rewritten.graph.initializers.get(name)!);
  for (const [domain, version] of rewritten.opsets) {
    if (model.opsets.has(domain)) continue;
    model.rest.opsetImport.push(create(OperatorSetIdProtoSchema, { domain, version: BigInt(version) }));
  }
  if (!edit.apply()) {
    throw new VerificationError('RECOVERY_NOT_A_MATRIX', 'The refitted matrices wait for each other.', {
      expected: 'products that depend on what they read alone',
      found: 'a cycle',
    });
  }
  dropUnreadWeights(model, before);
  checkMatrices(model, maps);
  return { model, maps: declared, weights };
}

/** The maps of the original that are parts of merged matrices, by their outputs. */
function mergedOutputs(groups: readonly WideGroupRecord[]): Set<string> {
  const branches = groups.flatMap(({ attention, ffn }) => [attention, ffn]);
  const products = branches.flatMap((branch) => branch?.products ?? []);
  return new Set(products.flatMap(({ pieces }) => pieces.map(({ output }) => output)));
}

function declares(model: Model): boolean {
  // A list that cannot be read declares something, too: what, its reader complains about.
  try {
    return refittedMaps(model).length > 0;
  } catch {
    return true;
  }
}

function isRefit({ name }: Node): boolean {
  return name.startsWith(REFIT_PREFIX);
}

function isOwnWeight(name: string, original: Model, rewritten: Model): boolean {
  return rewritten.graph.initializers.has(name) && !original.graph.initializers.has(name);
}

function originalMap(declared: RefittedMap, known: readonly LinearMap[]): LinearMap {
  const { layer, role, input, output } = declared;
  const map = known.find((candidate) => candidate.output === output);
  if (map?.layer === layer && map.role === role && map.input === input) return map;
  throw new VerificationError(
    'RECOVERY_UNKNOWN_MAP',
    `The original has no such map as ${nameOf(declared)}.`,
    {
      expected: `"${output}", computed from "${input}"`,
      found: map === undefined ? 'none with this output' : `${nameOf(map)}, from "${map.input}"`,
    },
  );
}

function nameOf({ layer, role, output }: RefittedMap): string {
  return `${role} of layer ${layer} ("${output}")`;
}

/** What a map reads in the rewritten graph: in a group, what read the stream before a layer reads the group's input. */
function inputInGroup({ layer, input }: LinearMap, anatomy: Anatomy, plan: Plan): string {
  const group = plan.groups.find(({ layers }) => layers.slice(1).includes(layer));
  const before = anatomy.layers[layer - 1];
  const first = anatomy.layers[group?.layers[0] ?? layer];
  if (group === undefined || before === undefined || first === undefined) return input;
  const { sum, carried } = lastBranch(before).add;
  return input === sum || input === carried ? first.input : input;
}

interface RefitNodes {
  /** In the order of the graph. */
  readonly nodes: readonly Node[];
  readonly weights: readonly string[];
  /** What they read, under its name in the rewritten graph. */
  readonly input: string;
}

class RefitReader {
  readonly #producers: ReadonlyMap<string, Node>;
  readonly #originals: ReadonlyMap<string, Node>;

  constructor(
    readonly original: Model,
    readonly rewritten: Model,
  ) {
    this.#producers = rewritten.graph.producers();
    this.#originals = original.graph.producers();
  }

  /** @param input what the map reads in the rewritten graph */
  read(map: LinearMap, input: string): RefitNodes {
    const prefix = refitPrefix(map);
    const last = this.#producers.get(map.output);
    if (last === undefined || !last.name.startsWith(prefix)) {
      throw new VerificationError('RECOVERY_MISSING', `No refitted matrix makes ${nameOf(map)}.`, {
        expected: `a node named ${prefix}…`,
        found: last === undefined ? 'no node that makes it' : describeNode(last),
      });
    }
    const within = new Set(map.nodes.flatMap(({ output }) => output));
    const known = new Set(map.nodes.flatMap(nodeInputs).filter((value) => !within.has(value)));
    const own = `${prefix.slice(1).replaceAll('/', '.')}`;
    const nodes = new Set([last]);
    const weights = new Set<string>();
    for (const node of nodes) {
      const taken = node.output.find((value) => value !== map.output && this.#originals.has(value));
      if (taken !== undefined) throw notAMatrix(map, `"${taken}", a value of the original, made with it`);
      for (const value of nodeInputs(node)) {
        const producer = this.#producers.get(value);
        if (value === input || (known.has(value) && value !== map.input)) continue;
        if (producer?.name.startsWith(prefix)) nodes.add(producer);
        else if (value.startsWith(own) && isOwnWeight(value, this.original, this.rewritten))
          weights.add(value);
        else throw this.#foreign(map, node, value, producer);
      }
    }
    const inOrder = this.rewritten.graph.nodes.filter((node) => nodes.has(node));
    return { nodes: inOrder, weights: [...weights], input };
  }

  #foreign(map: LinearMap, node: Node, value: string, producer: Node | undefined): VerificationError {
    const from = producer === undefined ? '' : `, which ${describeNode(producer)} makes`;
    return new VerificationError('RECOVERY_FOREIGN_INPUT', `${describeNode(node)} reads something else.`, {
      expected: `"${map.input}" and weights of its own`,
      found: `"${value}"${from}`,
    });
  }
}

/** A node for the original, in which what the map reads may have another name. */
function reading(node: Node, input: string, map: LinearMap): Node {
  const copy = cloneNode(node);
  copy.input = node.input.map((value) => (value === input ? map.input : value));
  return copy;
}

function checkMatrices(model: Model, maps: readonly LinearMap[]): void {
  const locator = new MapLocator(model);
  for (const map of maps) {
    try {
      const { hasBias } = locator.locate(map);
      if (hasBias !== map.hasBias) throw notAMatrix(map, hasBias ? 'one with a bias' : 'one without a bias');
    } catch (error) {
      throw error instanceof AnatomyError ? notAMatrix(map, error.found ?? error.code) : error;
    }
  }
}

function notAMatrix(map: LinearMap, found: string): VerificationError {
  const { inFeatures, outFeatures, hasBias } = map;
  return new VerificationError('RECOVERY_NOT_A_MATRIX', `What makes ${nameOf(map)} is not one such matrix.`, {
    expected: `a matrix [${inFeatures}, ${outFeatures}]${hasBias ? ' and a bias' : ''}`,
    found,
  });
}
