import type { Bypass } from '@cqil/core';
import { asFloat32, type TensorValue } from '@cqil/runtime-gpu';
import type { LinearMap, LinearMaps, MapRole, MatrixReplacement } from '../linear/index.js';
import { attentionRead, type BranchResult, type ModelParts, type StreamBatch } from '../parts/index.js';
import { sumOf } from '../parts/stream-batch.js';
import type { Products } from './products.js';
import { NormalSum, ridge } from './ridge.js';
import { DEFAULT_ROLES } from './roles.js';
import type { Student } from './student.js';
import { tokenWeights } from './token-weights.js';
import type { GroupRecovery, RecoverOptions, RecoveryStep } from './types.js';

/** Some windows of text, and the states of the stream that belong to them. */
export interface Batch {
  /** Whether it is of the development text. */
  readonly heldOut: boolean;
  /** What the layer at hand reads in the original. */
  teacher: StreamBatch;
  /** What it reads in the model that is repaired; the same object as long as nothing differs. */
  student: StreamBatch;
}

/** A batch at one group. */
interface GroupBatch {
  readonly heldOut: boolean;
  /** What each member reads in the original, and what the last one leaves. */
  readonly teacher: readonly StreamBatch[];
  /** What all members read here. */
  readonly x: StreamBatch;
  /** a_j of the members, by layer, as they are now. */
  readonly attention: Map<number, StreamBatch>;
}

/** Maps that are fitted together: to what is missing, from what they read. */
interface Unit {
  readonly maps: readonly LinearMap[];
  /**
   * `input`: they read one value and give several (columns of the solution); `output`: they read several values and
   * add up to one (rows of it).
   */
  readonly share: 'input' | 'output';
}

/** What a regression learns from a batch. */
interface Sample {
  /** `[tokens, features]` */
  readonly x: Float32Array;
  /** `[tokens, outputs]` */
  readonly target: Float32Array;
  readonly given: Float32Array;
  readonly weights: Float32Array;
  /** What the error is compared with, `[tokens, outputs]`. */
  readonly size: Float32Array;
}

interface Tools {
  readonly teacher: ModelParts;
  readonly student: Student;
  readonly products: Products;
}

type Taps = BranchResult['taps'];

/** Refits the matrices of one group; see `recover`. */
export class GroupRefit {
  readonly #steps: RecoveryStep[] = [];
  readonly #replacements: MatrixReplacement[] = [];
  readonly #roles: readonly MapRole[];
  readonly #skipFirst: number;
  /** Those that run. */
  readonly #members: readonly number[];
  #batches: GroupBatch[] = [];

  constructor(
    readonly layers: readonly number[],
    readonly bypass: Bypass,
    readonly maps: LinearMaps,
    readonly tools: Tools,
    readonly options: RecoverOptions,
  ) {
    this.#roles = options.roles ?? DEFAULT_ROLES;
    this.#skipFirst = options.skipFirst ?? 1;
    this.#members = layers.filter((layer) => options.skipped?.includes(layer) !== true);
  }

  /**
   * Fits, puts the new matrices into the student, and carries the batches on behind the group.
   *
   * @param known what was found before: nothing is fitted then
   * @param last nothing behind the group is fitted, so that the batches may stay where they are
   */
  async run(
    batches: readonly Batch[],
    known: GroupRecovery | undefined,
    last: boolean,
  ): Promise<GroupRecovery> {
    if (known !== undefined) await this.tools.student.take(known.replacements);
    if (known !== undefined && last) return known;
    for (const batch of batches) this.#batches.push(await this.#enter(batch));
    if (known === undefined) await this.#fitAll();
    if (!last) {
      await this.#runAttention(this.#members);
      for (const [at, batch] of batches.entries()) {
        const here = this.#batches[at] as GroupBatch;
        batch.student = (await this.#output(here, [])).y;
        batch.teacher = here.teacher.at(-1) as StreamBatch;
      }
    }
    this.#batches = [];
    return known ?? { layers: this.layers, steps: this.#steps, replacements: this.#replacements };
  }

  async #enter(batch: Batch): Promise<GroupBatch> {
    const teacher = [batch.teacher];
    for (const j of this.layers) {
      teacher.push(await this.tools.teacher.layer(j, teacher.at(-1) as StreamBatch));
    }
    return { heldOut: batch.heldOut, teacher, x: batch.student, attention: new Map() };
  }

  async #fitAll(): Promise<void> {
    const wants = (role: MapRole) => this.#roles.includes(role);
    // The first member reads what it always did, but for errors of earlier groups, which its own matrices cannot undo.
    for (const j of this.#members.slice(1)) {
      if (wants('qkv')) await this.#fitInner('qkv', j);
    }
    await this.#runAttention(this.#members);
    if (wants('o')) {
      for (const j of this.#members) {
        await this.#fitAttentionOutput(j);
        await this.#runAttention([j]);
      }
    }
    if (wants('gate-up')) {
      // With the full bypass the first member's FFN reads more than it did, too.
      for (const j of this.bypass === 'full' ? this.#members : this.#members.slice(1)) {
        await this.#fitInner('gate-up', j);
        if (this.#inAttention(j, 'gate-up')) await this.#runAttention([j]);
      }
    }
    if (wants('down')) await this.#fitDown();
  }

  /** Maps before a nonlinearity, to give what they give in the original. */
  async #fitInner(role: 'qkv' | 'gate-up', j: number): Promise<void> {
    const { teacher, student } = this.tools;
    for (const unit of this.#innerUnits(role, j)) {
      const [input, outputs] = [(unit.maps[0] as LinearMap).input, unit.maps.map((map) => map.output)];
      await this.#fit(role, [j], unit, async (batch) => {
        const read = batch.teacher[this.layers.indexOf(j)] as StreamBatch;
        const inAttention = this.#inAttention(j, role);
        const truth = inAttention
          ? await teacher.attention(j, read, { taps: outputs })
          : await teacher.ffn(j, await this.#ffnInputInOriginal(j, read), { taps: outputs });
        const taps = [input, ...outputs];
        const found = inAttention
          ? await student.parts.attention(j, batch.x, { taps })
          : await student.parts.ffn(j, this.#ffnInput(batch, j), { taps });
        const tokens = read.dims[0] * read.dims[1];
        const target = sideBySide(truth.taps, outputs, tokens);
        return {
          x: values(found.taps, input),
          target,
          given: sideBySide(found.taps, outputs, tokens),
          weights: tokenWeights(read, this.#skipFirst, false),
          size: target,
        };
      });
    }
  }

  /** What attention adds to the stream, to be what it adds in the original. */
  async #fitAttentionOutput(j: number): Promise<void> {
    const maps = this.#mapsOf('o', [j]);
    if (maps.length === 0) return;
    await this.#fit('o', [j], { maps, share: 'output' }, async (batch) => {
      const read = batch.teacher[this.layers.indexOf(j)] as StreamBatch;
      const truth = await this.tools.teacher.attention(j, read);
      const taps = maps.map((map) => map.input);
      const found = await this.tools.student.parts.attention(j, batch.x, { taps });
      return {
        x: sideBySide(found.taps, taps, read.dims[0] * read.dims[1]),
        target: truth.contribution.data,
        given: found.contribution.data,
        weights: tokenWeights(read, this.#skipFirst, true),
        size: truth.contribution.data,
      };
    });
  }

  /** All members' FFNs together, to leave the stream as the original does. */
  async #fitDown(): Promise<void> {
    const maps = this.#mapsOf('down', this.#members);
    if (maps.length === 0) return;
    await this.#fit(
      'down',
      [...new Set(maps.map((map) => map.layer))],
      { maps, share: 'output' },
      async (batch) => {
        const { y, taps } = await this.#output(batch, maps);
        const target = batch.teacher.at(-1) as StreamBatch;
        const inputs = maps.map((map) => map.input);
        return {
          x: sideBySide(taps, inputs, target.dims[0] * target.dims[1]),
          target: target.data,
          given: y.data,
          weights: tokenWeights(target, this.#skipFirst, true),
          size: target.data.map((value, i) => value - batch.x.data[i]!),
        };
      },
    );
  }

  async #fit(
    role: MapRole,
    layers: readonly number[],
    unit: Unit,
    sampleOf: (batch: GroupBatch) => Promise<Sample>,
  ): Promise<void> {
    const { products, student } = this.tools;
    const withOne = unit.maps.some((map) => map.hasBias);
    const fit = new NormalSum(products, withOne);
    const heldOut = new NormalSum(products, withOne);
    let size = 0;
    for (const batch of this.#batches) {
      const sample = await sampleOf(batch);
      const missing = sample.target.map((value, i) => value - sample.given[i]!);
      await (batch.heldOut ? heldOut : fit).add(sample.x, missing, sample.weights);
      if (batch.heldOut) size += weightedSquare(sample.size, sample.weights);
    }
    const sums = fit.finish();
    const found = await ridge(products, sums, heldOut.finish());
    const share = (error: number) => (size > 0 ? error / size : 0);
    const step = { layers, matrix: role, before: share(found.before), after: share(found.after) };
    if (found.solution === undefined || found.lambda === undefined) {
      const reason =
        found.before > 0
          ? 'no correction lessens the error on development text'
          : 'there is nothing to correct';
      this.#steps.push({ ...step, kept: false, reason });
      return;
    }
    const replacements: MatrixReplacement[] = [];
    for (const { map, weight, bias } of partsOf(found.solution, unit, sums.outputs, withOne)) {
      replacements.push(await student.plus(map, weight, bias));
    }
    await student.take(replacements);
    this.#replacements.push(...replacements);
    this.#steps.push({ ...step, lambda: found.lambda, kept: true });
  }

  /** The maps of a role that some layers have; why others have none goes to the steps. */
  #mapsOf(role: MapRole, layers: readonly number[]): LinearMap[] {
    for (const { layer, role: of, refused } of this.maps.refusals) {
      if (of !== role || !layers.includes(layer)) continue;
      this.#steps.push({ layers: [layer], matrix: role, before: 0, after: 0, kept: false, reason: refused });
    }
    return this.maps.maps.filter((map) => map.role === role && layers.includes(map.layer));
  }

  /** Of maps that read one value one solution tells all, as long as they are alike in having a bias. */
  #innerUnits(role: MapRole, j: number): Unit[] {
    const units = new Map<string, LinearMap[]>();
    for (const map of this.#mapsOf(role, [j])) {
      const key = `${map.hasBias}:${map.input}`;
      units.set(key, [...(units.get(key) ?? []), map]);
    }
    return [...units.values()].map((maps) => ({ maps, share: 'input' }));
  }

  /** Whether a role's matrices belong to the branch that reads the stream first; in a parallel block all do. */
  #inAttention(j: number, role: MapRole): boolean {
    return role === 'qkv' || role === 'o' || this.tools.student.parts.layers[j]?.ffn === undefined;
  }

  async #runAttention(layers: readonly number[]): Promise<void> {
    const { parts } = this.tools.student;
    for (const j of layers) {
      if (parts.layers[j]?.attention === undefined) continue;
      for (const batch of this.#batches) {
        batch.attention.set(j, (await parts.attention(j, batch.x)).contribution);
      }
    }
  }

  async #ffnInputInOriginal(j: number, x: StreamBatch): Promise<StreamBatch> {
    const { teacher } = this.tools;
    if (teacher.layers[j]?.attention === undefined) return x;
    return sumOf(x, (await teacher.attention(j, x)).contribution);
  }

  #ffnInput(batch: GroupBatch, j: number): StreamBatch {
    const reads = attentionRead(this.#members, this.bypass, j, this.tools.student.parts.layers);
    return sumOf(batch.x, ...reads.map((k) => batch.attention.get(k) as StreamBatch));
  }

  /** The stream behind the group, and what the given maps of its members read. */
  async #output(batch: GroupBatch, maps: readonly LinearMap[]): Promise<{ y: StreamBatch; taps: Taps }> {
    const { parts } = this.tools.student;
    const taps: Record<string, TensorValue> = {};
    const contributions = [...batch.attention.values()];
    for (const j of this.#members) {
      const own = maps.filter((map) => map.layer === j).map((map) => map.input);
      if (parts.layers[j]?.ffn !== undefined) {
        const found = await parts.ffn(j, this.#ffnInput(batch, j), { taps: own });
        contributions.push(found.contribution);
        Object.assign(taps, found.taps);
      } else if (own.length > 0) {
        Object.assign(taps, (await parts.attention(j, batch.x, { taps: own })).taps);
      }
    }
    return { y: sumOf(batch.x, ...contributions), taps };
  }
}

function values(taps: Taps, name: string): Float32Array {
  return asFloat32(taps[name] as TensorValue, name);
}

/** Values of `[tokens, …]` as the columns of one matrix. */
function sideBySide(taps: Taps, names: readonly string[], tokens: number): Float32Array {
  const parts = names.map((name) => values(taps, name));
  const [only] = parts;
  if (parts.length === 1 && only !== undefined) return only;
  const widths = parts.map((part) => part.length / tokens);
  const width = widths.reduce((sum, part) => sum + part, 0);
  const all = new Float32Array(tokens * width);
  let left = 0;
  for (const [k, part] of parts.entries()) {
    const own = widths[k] as number;
    for (let token = 0; token < tokens; token++) {
      all.set(part.subarray(token * own, (token + 1) * own), token * width + left);
    }
    left += own;
  }
  return all;
}

function weightedSquare(data: Float32Array, weights: Float32Array): number {
  const width = data.length / weights.length;
  let sum = 0;
  for (const [token, weight] of weights.entries()) {
    let square = 0;
    for (let i = token * width; i < (token + 1) * width; i++) square += data[i]! ** 2;
    sum += weight * square;
  }
  return sum;
}

/** What a solution `[features (+ 1), outputs]` adds to each map. */
function* partsOf(
  solution: Float64Array,
  { maps, share }: Unit,
  outputs: number,
  withOne: boolean,
): Generator<{ map: LinearMap; weight: Float64Array; bias: Float64Array | undefined }> {
  const last = solution.length / outputs - 1;
  let at = 0;
  let biasGiven = false;
  for (const map of maps) {
    if (share === 'output') {
      // One bias is enough for a sum of all.
      const bias: Float64Array | undefined =
        withOne && map.hasBias && !biasGiven ? solution.slice(last * outputs) : undefined;
      biasGiven ||= bias !== undefined;
      yield { map, weight: solution.slice(at * outputs, (at + map.inFeatures) * outputs), bias };
      at += map.inFeatures;
      continue;
    }
    const columns = (from: number, to: number) => {
      const part = new Float64Array((to - from) * map.outFeatures);
      for (let row = from; row < to; row++) {
        const start = row * outputs + at;
        part.set(solution.subarray(start, start + map.outFeatures), (row - from) * map.outFeatures);
      }
      return part;
    };
    const bias = withOne ? columns(last, last + 1) : undefined;
    yield { map, weight: columns(0, map.inFeatures), bias };
    at += map.outFeatures;
  }
}
