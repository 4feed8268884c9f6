import type { Plan, PlanGroup } from '@cqil/core';
import type { SessionOptions } from '@cqil/runtime-gpu';
import type { Anatomy } from '../anatomy/index.js';
import { type LinearMap, type MatrixReplacement, readMatrix, replaceMatrices } from '../linear/index.js';
import { MapLocator } from '../linear/locate.js';
import { intAttribute, type Model } from '../onnx/index.js';
import type { RefittedMap } from '../recover/metadata.js';
import { type AffineMatrix, foldNorm, MatrixBuilder, type NormScaling } from '../rewrite/wide/algebra.js';
import { ConstantReader } from '../rewrite/wide/constant-reader.js';
import { type MemberBranch, type Mergeable, type Packable, WideReader } from '../rewrite/wide/members.js';
import {
  type WideBranchRecord,
  type WideGroupRecord,
  type WideProduct,
  wideGroups,
} from '../rewrite/wide/metadata.js';
import { mergedMembers, merges } from '../rewrite/wide/rewrite-groups.js';
import type { VerifyCheck } from './types.js';

/** What a model with wide layers is to be held to. */
export interface HeldWide {
  /**
   * The original, in which the members of wide layers whose matrices were rounded have these matrices, taken apart and
   * their norm taken out again; the original itself where none was.
   */
  readonly model: Model;
  /** Whether each wide matrix is, up to its storage's rounding, what its members' are together. */
  readonly check: VerifyCheck;
}

/** Weights that belong to wide layers and packed groups, by their names. */
export function weightsOfWide(rewritten: Model, plan: Plan | undefined): Set<string> {
  const merged = (plan?.groups ?? []).flatMap((group, index) => (merges(group) ? [index] : []));
  // Sizes of caches that are put together or apart.
  const prefixes = merged.length === 0 ? [] : [...merged.map((index) => `cqil.group.${index}.`), 'cqil.kv.'];
  const names = [...rewritten.graph.initializers.keys()];
  return new Set(names.filter((name) => prefixes.some((prefix) => name.startsWith(prefix))));
}

/**
 * Reads the matrices of wide layers and compares them with what the members' matrices make, norms folded. In floating
 * point the parity of the whole graph tells more; what was rounded to blocks, or refitted before it was put together,
 * is put into a copy of the original, so that parity can be held against the method with these very numbers.
 *
 * @param held the original, with the refitted matrices of other groups where there are any
 * @param original as it is: maps that are not refitted must be its own
 * @throws ModelFormatError `WIDE_METADATA`; AnatomyError, InferenceError from reading matrices
 */
export async function holdWide(
  held: Model,
  original: Model,
  anatomy: Anatomy,
  rewritten: Model,
  plan: Plan,
  refitted: readonly RefittedMap[],
  session: SessionOptions = {},
): Promise<HeldWide> {
  const records = wideGroups(rewritten);
  const declared = new Set(records.map(({ group, layers }) => `${group}: ${layers.join()}`));
  const planned = plan.groups.flatMap((group, index) =>
    merges(group) ? [`${index}: ${group.layers.join()}`] : [],
  );
  if (planned.join(' ') !== [...declared].join(' ')) {
    const detail = `the plan has the wide or packed groups ${planned.join('; ') || 'none'}, the model declares ${[...declared].join('; ') || 'none'}`;
    return { model: held, check: failed('WIDE_UNDECLARED', detail) };
  }
  const reader = new WideReader(original, anatomy, original, session);
  const comparer = new Comparer(reader, rewritten, refitted, session);
  for (const record of records) {
    const found = await mergedMembers(plan.groups[record.group] as PlanGroup, anatomy, reader);
    if ('reason' in found) return { model: held, check: failed('WIDE_IMPOSSIBLE', found.reason) };
    const wrong = await comparer.group(record, found);
    if (wrong !== undefined) return { model: held, check: failed('WIDE_MATRIX', wrong) };
  }
  const { replacements, rounded, count } = comparer;
  const kind = plan.groups.some(({ form }) => form === 'packed') ? 'merged group' : 'wide layer';
  const layers = `${records.length} ${kind}${records.length === 1 ? '' : 's'}`;
  const storage = rounded === 0 ? 'in floating point' : `${rounded} of them in blocks, rounded once`;
  const detail = `${layers} of ${count} matrices, ${storage}`;
  const model = replacements.length === 0 ? held : replaceMatrices(held, replacements, { storage: 'float' });
  return { model, check: { name: 'wide', status: 'passed', ok: true, detail } };
}

function failed(code: string, detail: string): VerifyCheck {
  return { name: 'wide', status: 'failed', ok: false, code, detail };
}

class Comparer {
  readonly replacements: MatrixReplacement[] = [];
  rounded = 0;
  count = 0;
  readonly #locator: MapLocator;
  readonly #refitted: ReadonlySet<string>;
  readonly #quantised: boolean;

  constructor(
    readonly reader: WideReader,
    readonly rewritten: Model,
    refitted: readonly RefittedMap[],
    readonly session: SessionOptions,
  ) {
    this.#locator = new MapLocator(rewritten);
    this.#refitted = new Set(refitted.map(({ output }) => output));
    // Products that round what they read to 8 bits round otherwise in one layer than in several.
    this.#quantised = reader.model.graph.nodes.some(({ opType }) => opType === 'DynamicQuantizeLinear');
  }

  /** @returns what is wrong */
  async group(
    record: WideGroupRecord,
    found: { readonly wide: Mergeable } | { readonly packed: Packable },
  ): Promise<string | undefined> {
    for (const part of ['attention', 'ffn'] as const) {
      const wrong = await this.#branch(record[part], ...mergedMaps(found, part));
      if (wrong !== undefined) return `layers ${record.layers.join(', ')}: ${wrong}`;
    }
    return undefined;
  }

  /** @param maps those of the members' that are to be parts of merged matrices */
  async #branch(
    record: WideBranchRecord | undefined,
    branches: readonly MemberBranch[],
    maps: readonly LinearMap[],
  ): Promise<string | undefined> {
    const expected = maps.map(({ output }) => output);
    if (record === undefined) return expected.length === 0 ? undefined : 'its matrices are not declared';
    const named = record.products.flatMap(({ pieces }) => pieces.map(({ output }) => output));
    if ([...expected].sort().join('\0') !== [...named].sort().join('\0'))
      return 'its matrices are not those of its members';
    const gains = new ConstantReader(this.rewritten, this.session);
    const shared = record.gain === undefined ? undefined : await gains.numbers(record.gain);
    for (const product of record.products) {
      const wrong = await this.#product(product, branches, shared);
      if (wrong !== undefined) return wrong;
    }
    return undefined;
  }

  async #product(
    product: WideProduct,
    branches: readonly MemberBranch[],
    shared: Float64Array | undefined,
  ): Promise<string | undefined> {
    const { inFeatures, outFeatures, hasBias, input, output } = product;
    const wide: LinearMap = {
      layer: 0,
      role: 'qkv',
      input,
      output,
      inFeatures,
      outFeatures,
      hasBias,
      nodes: [],
    };
    const blocks = this.#locator.locate(wide).nodes.find(({ opType }) => opType === 'MatMulNBits');
    this.count += 1;
    const own = product.pieces.some((piece) => this.#refitted.has(piece.output));
    if (blocks === undefined && !own && !this.#quantised) return undefined;
    if (blocks !== undefined) this.rounded += 1;
    const found = await readMatrix(this.rewritten, wide, this.session);
    const builder = new MatrixBuilder(inFeatures, outFeatures, hasBias);
    const known: {
      map: LinearMap;
      plain: AffineMatrix;
      norm: NormScaling;
      piece: WideProduct['pieces'][number];
    }[] = [];
    for (const piece of product.pieces) {
      const branch = branches.find(({ entries, exit }) =>
        [...entries, exit].some((map) => map.output === piece.output),
      ) as MemberBranch;
      const map = [...branch.entries, branch.exit].find((one) => one.output === piece.output) as LinearMap;
      const plain = {
        inFeatures: map.inFeatures,
        outFeatures: map.outFeatures,
        ...(await readMatrix(this.reader.source, map, this.session)),
      };
      const norm =
        piece.columns === undefined ? { gain: undefined, shift: undefined } : await this.#scaling(branch);
      const part = piece.columns === undefined ? plain : foldNorm(plain, norm, shared);
      if (piece.columns !== undefined) builder.columns(part, piece.columns);
      else builder.rows(part, piece.row ?? 0);
      known.push({ map, plain, norm, piece });
    }
    const expected = builder.build();
    for (const { map, plain, norm, piece } of known) {
      const skipped = this.#refitted.has(map.output);
      if (!skipped) {
        const wrong = differs(found.weight, expected.weight, product, piece, map, blocks && blockOf(blocks));
        if (wrong !== undefined) return `"${output}": ${wrong}`;
      }
      const { weight, bias } = takeApart(found.weight, found.bias, product, piece, map, norm, shared);
      // A sum of biases cannot be told apart: all of it is the first one's, and what is not refitted keeps its own.
      const known = piece.columns === undefined && !skipped ? plain.bias : bias;
      this.replacements.push({
        map,
        weight: weight(plain.weight),
        ...(map.hasBias ? { bias: known ?? plain.bias } : {}),
      });
    }
    return undefined;
  }

  async #scaling({ norm }: MemberBranch): Promise<NormScaling> {
    const { constants } = this.reader;
    return {
      gain: norm.gain === undefined ? undefined : await constants.numbers(norm.gain.value),
      shift: norm.shift === undefined ? undefined : await constants.numbers(norm.shift.value),
    };
  }
}

/** The members' branches, and which of their maps are parts of merged matrices. */
function mergedMaps(
  found: { readonly wide: Mergeable } | { readonly packed: Packable },
  part: 'attention' | 'ffn',
): [readonly MemberBranch[], readonly LinearMap[]] {
  if ('wide' in found) {
    const branches = found.wide.members.map((member) => member[part]);
    return [branches, branches.flatMap(({ entries, exit }) => [...entries, exit])];
  }
  const { attention, ffn } = found.packed;
  if (part === 'attention') {
    const branches = 'reason' in attention ? [] : attention.members;
    return [branches, branches.flatMap(({ entries }) => entries)];
  }
  const branches = 'reason' in ffn ? [] : ffn;
  return [branches, branches.map(({ exit }) => exit)];
}

interface Blocks {
  readonly size: number;
  readonly last: number;
}

function blockOf(node: Parameters<typeof intAttribute>[0]): Blocks {
  const bits = intAttribute(node, 'bits') ?? 4;
  return { size: intAttribute(node, 'block_size') ?? 32, last: 2 ** (bits - 1) - 1 };
}

/** What rounding to a type's digits moves a value by, relative to it: float16's. */
const ROUNDING = 1e-3;

/** Whether a piece is further from what it should be than rounding to its storage explains. */
function differs(
  found: Float32Array,
  expected: Float32Array,
  { outFeatures }: WideProduct,
  piece: WideProduct['pieces'][number],
  map: LinearMap,
  blocks: Blocks | undefined,
): string | undefined {
  const size = blocks?.size ?? 1;
  const rowFrom = piece.row ?? 0;
  const runs = piece.columns ?? [{ from: 0, width: outFeatures, at: 0 }];
  for (const { at, width } of runs) {
    for (let j = at; j < at + width; j++) {
      for (let block = Math.floor(rowFrom / size); block * size < rowFrom + map.inFeatures; block++) {
        const [from, to] = [
          Math.max(rowFrom, block * size),
          Math.min(rowFrom + map.inFeatures, (block + 1) * size),
        ];
        let largest = 0;
        for (let k = block * size; k < (block + 1) * size; k++)
          largest = Math.max(largest, Math.abs(found[k * outFeatures + j] as number));
        // Half a step, and what the rounding of the step itself moves the last code by.
        const step = blocks === undefined ? 0 : (largest / blocks.last) * (0.5 + ROUNDING * blocks.last);
        for (let k = from; k < to; k++) {
          const [is, should] = [
            found[k * outFeatures + j] as number,
            expected[k * outFeatures + j] as number,
          ];
          if (Math.abs(is - should) <= step + ROUNDING * Math.abs(should) + 1e-7) continue;
          return `row ${k}, column ${j} is ${is}, not ${should} (${map.role} of layer ${map.layer})`;
        }
      }
    }
  }
  return undefined;
}

/** A member's matrix out of a wide one, for the member's own norm. */
function takeApart(
  wide: Float32Array,
  bias: Float32Array | undefined,
  { outFeatures }: WideProduct,
  { columns, row }: WideProduct['pieces'][number],
  map: LinearMap,
  norm: NormScaling,
  shared: Float64Array | undefined,
): { weight: (own: Float32Array) => Float32Array; bias: Float32Array | undefined } {
  if (columns === undefined) {
    const from = (row ?? 0) * outFeatures;
    const part = wide.slice(from, from + map.inFeatures * outFeatures);
    const zeros = new Float32Array(outFeatures);
    return { weight: () => part, bias: row === 0 ? bias : zeros };
  }
  const own = new Float32Array(map.outFeatures);
  const made = new Float32Array(map.inFeatures * map.outFeatures);
  for (const { from, width, at } of columns) {
    for (let j = 0; j < width; j++) {
      let offset = 0;
      for (let k = 0; k < map.inFeatures; k++) {
        const factor = (norm.gain?.[k] ?? 1) / (shared?.[k] ?? 1);
        const value = (wide[k * outFeatures + at + j] as number) / factor;
        made[k * map.outFeatures + from + j] = value;
        offset += (norm.shift?.[k] ?? 0) * value;
      }
      own[from + j] = (bias?.[at + j] ?? 0) - offset;
    }
  }
  // What a gain of 0 hides has no other value to be taken from.
  const weight = (before: Float32Array) =>
    made.map((value, i) => (Number.isFinite(value) ? value : (before[i] as number)));
  return { weight, bias: own };
}
