import type { Model } from '../../onnx/index.js';
import { Names } from '../names.js';
import { dropUnreadWeights, readValues } from '../unread-weights.js';
import { DEFAULT_POSITIONS, fuseAttention } from './attention/attention.js';
import { fuseLayerNorms } from './layer-norm.js';
import { removeNoOpCasts } from './no-op-casts.js';
import { packGateUp, packQkv } from './pack-products.js';
import { quantiseProducts } from './quantise-products.js';
import { fuseRmsNorms } from './rms-norm.js';
import { fuseSkipNorms } from './skip-norms.js';
import {
  FUSE_PASSES,
  type FuseOptions,
  type FusePass,
  type FusePassName,
  type FusePassReport,
  type FuseResult,
} from './types.js';
import { unfoldProducts } from './unfold-products.js';

/** In the order in which they are run: each finds what the ones before it left. */
const PASSES: readonly (readonly [FusePassName, FusePass])[] = [
  ['casts', removeNoOpCasts],
  ['rms-norm', fuseRmsNorms],
  ['layer-norm', fuseLayerNorms],
  ['products', unfoldProducts],
  ['attention', fuseAttention],
  ['pack-qkv', packQkv],
  ['pack-gate-up', packGateUp],
  ['skip-norm', fuseSkipNorms],
];

/**
 * Turns a decoder graph in plain operators, as Optimum exports it, into one with ONNX Runtime's fused operators:
 * `GroupQueryAttention`, `SimplifiedLayerNormalization`, `Skip…LayerNormalization`, products packed together, and on
 * request `MatMulNBits`. It computes the same up to rounding (with `bits`, the same on the quantised matrices).
 *
 * What each part computes is found by following its data and by running it on small inputs, never by names. What a pass
 * does not understand it leaves as it is, and says why; so every graph that `analyze` understands can be given.
 *
 * Inputs and outputs of the graph keep their names, order, types and shapes. `analyze` and `rewriteBranches` understand
 * the result. Weights are kept by reference; packed and quantised ones are made when they are written, one at a time.
 *
 * @returns a new model; the given one is not changed
 * @throws AnatomyError for a graph that is no decoder; the signal's reason
 */
export async function fuse(source: Model, options: FuseOptions = {}): Promise<FuseResult> {
  const model = source.clone();
  const readBefore = readValues(model);
  const reports: FusePassReport[] = [];
  const context = () => ({ model, names: new Names(model), options });
  for (const [name, pass] of PASSES) {
    options.signal?.throwIfAborted();
    if (options.without?.includes(name)) continue;
    const made = await pass(context());
    reports.push(...('name' in made ? [made] : made));
    dropUnreadWeights(model, readBefore);
  }
  const order = (name: FusePassName) => FUSE_PASSES.indexOf(name);
  const passes = reports.sort((a, b) => order(a.name) - order(b.name));
  const notes = notesOn(passes, options);
  if (options.bits === undefined || options.without?.includes('quantise') === true)
    return { model, passes, notes };
  const { model: quantised, report } = await quantisedCopy(model, options, 'blocks');
  return { model: quantised, passes: [...passes, report], notes };
}

/** A copy with its matrices in blocks of `bits`, or, as `values`, with the numbers that those stand for. */
export async function quantisedCopy(
  source: Model,
  options: FuseOptions,
  as: 'blocks' | 'values',
): Promise<{ model: Model; report: FusePassReport }> {
  const model = source.clone();
  const readBefore = readValues(model);
  const report = await quantiseProducts({ model, names: new Names(model), options }, as);
  dropUnreadWeights(model, readBefore);
  return { model, report };
}

function notesOn(passes: readonly FusePassReport[], options: FuseOptions): string[] {
  const applied = (name: FusePassName) => passes.find((pass) => pass.name === name)?.applied ?? 0;
  const notes: string[] = [];
  if (applied('rotary') > 0) {
    notes.push(
      `Rotary embeddings are tables of ${options.maxPositions ?? DEFAULT_POSITIONS} positions now: ONNX Runtime refuses ` +
        'longer sequences, padding included.',
      'Positions are counted from the beginning of the cache; position_ids are no longer read for them.',
    );
  }
  if (applied('attention') === 0) return notes;
  notes.push(
    options.padding === 'none'
      ? 'Attention takes sequences for unpadded, or padded on the right: batches padded on the left come out wrong.'
      : 'Batches padded on the left are right. CUDA kernels do not take the mask that this needs: for CUDA fuse with padding "none".',
    'Of several sequences at once, new tokens behind a cache go in one by one: ONNX Runtime takes more for one sequence only.',
  );
  return notes;
}
