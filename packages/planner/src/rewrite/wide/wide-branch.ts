import type { AffinePart } from '../../linear/affine.js';
import type { LinearMap } from '../../linear/index.js';
import { DataType, type Node } from '../../onnx/index.js';
import { cloneNode } from '../../onnx/model.js';
import { trimmed } from '../skip-norm.js';
import { type ColumnRun, meanGain, type NormScaling, nearestGain } from './algebra.js';
import type { WeightSlot } from './entry-norm.js';
import type { MemberBranch, WideReader } from './members.js';
import type { WideProduct } from './metadata.js';
import { type BlockStorage, blockStorage, type Emitter, encodeFloats, type WideStorage } from './product.js';
import { type StoredBlocks, sameFormat, storedBlocks } from './wide-blocks.js';
import { type LatestMatrix, WideMatrix, type WidePiece } from './wide-matrix.js';

export interface WideBranchOptions {
  readonly reader: WideReader;
  readonly emitter: Emitter;
  readonly storage: WideStorage;
  readonly latest: LatestMatrix;
}

/** Where the parts of members' outputs lie in a wide output. */
export interface WideLayout {
  readonly width: number;
  /** By member, then by segment. */
  readonly runs: readonly (readonly ColumnRun[])[];
}

/**
 * Places the segments of each member's output so that equal segments of all members are neighbours: all q, then all k,
 * then all v.
 *
 * @param widths by member, then by segment
 */
export function layOut(widths: readonly (readonly number[])[]): WideLayout {
  const segments = widths[0]?.length ?? 0;
  const runs: ColumnRun[][] = widths.map(() => []);
  let at = 0;
  for (let segment = 0; segment < segments; segment++) {
    for (const [member, sizes] of widths.entries()) {
      const width = sizes[segment] as number;
      const from = sizes.slice(0, segment).reduce((a, b) => a + b, 0);
      runs[member]?.push({ from, width, at });
      at += width;
    }
  }
  return { width: at, runs };
}

/** The attentions or the FFNs of a group's members, to be made one: their matrices and the norm before them. */
export class WideBranch {
  readonly products: WideProduct[] = [];
  readonly first: MemberBranch;
  readonly #parts: ReadonlyMap<LinearMap, AffinePart>;
  readonly #stored: ReadonlyMap<LinearMap, StoredBlocks | undefined>;
  readonly #blocks: BlockStorage | undefined;
  /** The member whose gain the shared norm keeps: its matrices stay as they are. */
  #kept: number | undefined;
  #scaling: readonly NormScaling[] = [];
  #shared: Float64Array | undefined;
  #normOutput = '';
  #sharedName: string | undefined;

  constructor(
    readonly members: readonly MemberBranch[],
    readonly options: WideBranchOptions,
  ) {
    this.first = members[0] as MemberBranch;
    const { locator } = options.reader;
    const maps = members.flatMap(({ entries, exit }) => [...entries, exit]);
    this.#parts = new Map(maps.map((map) => [map, locator.locate(map)]));
    const { constants } = options.reader;
    this.#stored = new Map(maps.map((map) => [map, storedBlocks(this.partOf(map), constants)]));
    const [entry] = this.first.entries as [LinearMap];
    this.#blocks = this.#blocksOf(
      members.flatMap(({ entries }) => entries),
      entry.inFeatures,
    );
  }

  /** The initialiser with the gain that the shared norm keeps; `undefined` where it keeps none. */
  get sharedGain(): string | undefined {
    return this.#sharedName;
  }

  /** The normalised value that all members read, with the shared gain, as it is called in the rewritten graph. */
  get normOutput(): string {
    return this.#normOutput;
  }

  partOf(map: LinearMap): AffinePart {
    return this.#parts.get(map) as AffinePart;
  }

  /**
   * Takes gain and shift out of the first member's norm, which serves all from now on, and remembers every member's for
   * its matrices. Changes the norm's node in place: it may be fused with a sum that another group puts something in the
   * place of, later.
   *
   * @param bypass called where a multiplication by ones is left out: who read the first value now reads the second
   */
  async shareNorm(bypass: (value: string, instead: string) => void): Promise<void> {
    const { constants } = this.options.reader;
    const read = async (slot: WeightSlot | undefined) =>
      slot === undefined ? undefined : await constants.numbers(slot.value);
    this.#scaling = await Promise.all(
      this.members.map(async ({ norm }) => ({ gain: await read(norm.gain), shift: await read(norm.shift) })),
    );
    const { norm } = this.first;
    const hidden = (this.first.entries[0] as LinearMap).inFeatures;
    // In floating point folding is exact up to rounding, and a norm without gain is what engines are fastest at.
    if (this.#blocks !== undefined && norm.gain !== undefined) {
      const gains = this.#scaling.map(({ gain }) => gain);
      this.#kept = nearestGain(gains);
      this.#shared = this.#kept === undefined ? meanGain(gains, hidden) : gains[this.#kept];
    }
    this.#normOutput = norm.output;
    if (norm.shift !== undefined) this.#clear(norm.shift);
    if (norm.gain === undefined) return;
    const { node, slot } = norm.gain;
    const plainEnd = node.opType === 'Mul' && node.output[0] === norm.output && norm.shift === undefined;
    if (this.#shared === undefined && plainEnd) {
      this.#normOutput = node.input[1 - slot] as string;
      bypass(norm.output, this.#normOutput);
      return;
    }
    const values = this.#shared ?? new Float64Array(hidden).fill(1);
    const name = this.#like(norm.gain, this.#shared === undefined ? 'ones' : 'gain', values);
    if (this.#shared !== undefined) this.#sharedName = name;
    node.input[slot] = name;
  }

  /**
   * One product for the same map, or the same few maps, of all members.
   *
   * @param input what it reads: a value that holds the shared norm's output
   * @param pieces the maps, with where their columns go
   */
  entryProduct(
    name: string,
    input: string,
    pieces: readonly { map: LinearMap; member: number; runs: readonly ColumnRun[] }[],
  ): string {
    const outFeatures = pieces.reduce(
      (sum, { runs }) => sum + runs.reduce((all, { width }) => all + width, 0),
      0,
    );
    const { map: like } = pieces[0] as { map: LinearMap };
    const shifted = this.#scaling.some(({ shift }) => shift !== undefined);
    return this.#product(name, input, like, this.#blocks, {
      inFeatures: like.inFeatures,
      outFeatures,
      hasBias: shifted || pieces.some(({ map }) => map.hasBias),
      pieces: pieces.map(({ map, member, runs }) => ({
        map,
        columns: runs,
        norm: this.#scaling[member] as NormScaling,
      })),
      shared: this.#shared,
    });
  }

  /** The same map of all members, segments of equal kind side by side. */
  entry(name: string, input: string, k: number, layout: WideLayout): string {
    const pieces = this.members.map(({ entries }, member) => ({
      map: entries[k] as LinearMap,
      member,
      runs: layout.runs[member] as readonly ColumnRun[],
    }));
    return this.entryProduct(name, input, pieces);
  }

  /** The last matrices of all members, one below the other: their outputs' sum. */
  async exit(name: string, input: string): Promise<string> {
    const { reader } = this.options;
    const maps = this.members.map(({ exit }) => exit);
    const [like] = maps as [LinearMap];
    const inFeatures = maps.reduce((sum, map) => sum + map.inFeatures, 0);
    const extra = await Promise.all(
      this.members.flatMap(({ biases }) => biases).map((value) => reader.constants.numbers(value)),
    );
    let row = 0;
    const pieces: WidePiece[] = [];
    for (const map of maps) {
      pieces.push({ map, row });
      row += map.inFeatures;
    }
    return this.#product(name, input, like, this.#blocksOf(maps, inFeatures), {
      inFeatures,
      outFeatures: like.outFeatures,
      hasBias: extra.length > 0 || maps.some(({ hasBias }) => hasBias),
      pieces,
      biases: extra,
    });
  }

  /** Folds batch and sequence as the first member's last product had them folded behind it. */
  refold(name: string, value: string): string {
    for (const { node, behindProduct } of this.partOf(this.first.exit).folds) {
      if (behindProduct) value = this.repeat(name, node, [value, ...node.input.slice(1)]);
    }
    return value;
  }

  /** A copy of a node on other inputs; gives its first output. */
  repeat(name: string, node: Node, inputs: readonly string[]): string {
    const { emitter } = this.options;
    const value = emitter.node(
      name,
      node.opType,
      trimmed(inputs),
      node.domain === '' ? {} : { domain: node.domain },
    );
    const made = emitter.nodes.at(-1) as Node;
    made.attribute = cloneNode(node).attribute;
    return value;
  }

  #blocksOf(maps: readonly LinearMap[], inFeatures: number): BlockStorage | undefined {
    const parts = maps.map((map) => this.partOf(map));
    const stored = maps.map((map) => this.#stored.get(map));
    return blockStorage(parts, inFeatures, this.options.storage, stored);
  }

  /** Pieces whose codes can stay: no norm is to be folded into them, and their blocks are those of the whole. */
  #keptPieces(pieces: readonly WidePiece[], blocks: BlockStorage): Map<WidePiece, StoredBlocks> {
    const kept = new Map<WidePiece, StoredBlocks>();
    for (const piece of pieces) {
      const stored = this.#stored.get(piece.map);
      const { row = 0, norm, map } = piece;
      const folded = norm !== undefined && norm !== this.#scaling[this.#kept ?? -1];
      const aligned = row % blocks.blockSize === 0 && map.inFeatures % blocks.blockSize === 0;
      if (stored !== undefined && !folded && aligned && sameFormat(stored, blocks)) kept.set(piece, stored);
    }
    return kept;
  }

  #product(
    name: string,
    input: string,
    like: LinearMap,
    blocks: BlockStorage | undefined,
    matrix: ConstructorParameters<typeof WideMatrix>[1],
  ): string {
    const { emitter, latest, reader } = this.options;
    const wide = new WideMatrix(reader.source, matrix, latest, reader.session);
    const { constants } = reader;
    const stored = blocks && { storage: blocks, constants, kept: this.#keptPieces(matrix.pieces, blocks) };
    const output = emitter.product(name, input, wide, this.partOf(like), stored);
    const { inFeatures, outFeatures, hasBias, pieces } = matrix;
    this.products.push({
      input,
      output,
      inFeatures,
      outFeatures,
      hasBias,
      pieces: pieces.map(({ map, columns, row }) => ({
        layer: map.layer,
        role: map.role,
        output: map.output,
        ...(columns === undefined ? {} : { columns: columns.map((run) => ({ ...run })) }),
        ...(row === undefined ? {} : { row }),
      })),
    });
    return output;
  }

  #clear({ node, slot, value }: WeightSlot): void {
    if (node.opType === 'Add')
      node.input[slot] = this.#like({ node, slot, value }, 'zeros', new Float64Array(this.#hidden(value)));
    else {
      node.input[slot] = '';
      node.input = trimmed(node.input);
    }
  }

  #hidden(value: string): number {
    return this.options.reader.constants.size(value) as number;
  }

  /** A vector in the shape and type of a weight. */
  #like({ value }: WeightSlot, name: string, numbers: Float64Array): string {
    const { emitter, reader } = this.options;
    const { dims, dataType } = reader.constants.constants.info(value) ?? {
      dims: [numbers.length],
      dataType: DataType.FLOAT,
    };
    return emitter.weight(`norm.${name}`, dataType, dims, encodeFloats(numbers, dataType));
  }
}
