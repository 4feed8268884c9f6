import { BlockDependencyAccumulator, type OnProgress, tokenMask } from '@cqil/core';
import { asFloat32, type SessionOptions, type TensorValue } from '@cqil/runtime-gpu';
import { type Anatomy, streamValues } from '../anatomy/index.js';
import { SubmodelCutter } from '../onnx/extract.js';
import { DataType, type Model } from '../onnx/index.js';
import { withVariant } from '../variant/index.js';
import { hiddenSize, runSequence } from './run.js';
import { streamPoints } from './taps.js';

export interface DependencyOptions {
  /** How many layers behind a left-out one are looked at. */
  readonly span: number;
  readonly skipFirst: number;
  readonly session?: SessionOptions;
  readonly signal?: AbortSignal;
  readonly onProgress?: OnProgress;
}

/** One sequence and the stream's states for it, from the whole model, in the order of `streamPoints`. */
export interface TappedSequence {
  readonly ids: readonly number[];
  readonly states: readonly TensorValue[];
}

const ELEMENT_TYPES: Readonly<Record<string, number>> = {
  float32: DataType.FLOAT,
  float16: DataType.FLOAT16,
  float64: DataType.DOUBLE,
};

/**
 * Block dependency (FFN Fusion, arXiv 2503.18908) of the layers behind each layer: how much a layer's
 * contribution to the stream turns when an earlier layer is left out.
 *
 * Leaving layer i out means that layer i + 1 reads what layer i read. So the layers behind i, cut out of the
 * graph, are run on the input of i; everything before them is as in the whole model.
 *
 * @param unfused a model without fused skip norms
 * @returns `[layers]` rows; row i holds the distances of layers i + 1 … i + span, as far as there are any
 */
export async function blockDependencies(
  unfused: Model,
  anatomy: Anatomy,
  sequences: readonly TappedSequence[],
  options: DependencyOptions,
): Promise<number[][]> {
  const points = streamPoints(anatomy);
  const cutter = new SubmodelCutter(unfused);
  const rows: number[][] = [];
  for (let left = 0; left < anatomy.layers.length; left++) {
    options.signal?.throwIfAborted();
    const behind = Math.min(options.span, anatomy.layers.length - 1 - left);
    rows.push(behind === 0 ? [] : await dependenciesOn(left, behind));
    options.onProgress?.({
      phase: 'leaving layers out',
      done: left + 1,
      total: anatomy.layers.length,
      unit: 'layers',
    });
  }
  return rows;

  async function dependenciesOn(left: number, behind: number): Promise<number[]> {
    // The value behind the left-out layer becomes an input, which is given what that layer read.
    const entry = points[left + 1]!;
    const outputs = points.slice(left + 2, left + 2 + behind);
    const sample = sequences[0]!.states[left]!;
    const hidden = hiddenSize(sample);
    const sameShape = new Map([...streamValues(anatomy)].filter((v) => v !== entry).map((v) => [v, entry]));
    const shape = ['cut_batch', 'cut_seq', hidden];
    const part = cutter.cut([{ name: entry, dataType: ELEMENT_TYPES[sample.type]!, shape }], outputs, {
      sameShape,
    });
    const found = outputs.map(() => new BlockDependencyAccumulator({ hidden }));
    await withVariant(part, options.session ?? {}, async (session) => {
      for (const { ids, states } of sequences) {
        options.signal?.throwIfAborted();
        const results = await runSequence(session, ids, outputs, { [entry]: states[left]! });
        const mask = tokenMask({ batch: 1, sequence: ids.length, skipFirst: options.skipFirst });
        let before = asFloat32(states[left]!);
        for (const [k, name] of outputs.entries()) {
          const after = asFloat32(results[name]!);
          const whole = difference(asFloat32(states[left + 2 + k]!), asFloat32(states[left + 1 + k]!));
          found[k]!.add(whole, difference(after, before), { mask });
          before = after;
        }
      }
    });
    return found.map((accumulator) => accumulator.finish().distance);
  }
}

function difference(a: Float32Array, b: Float32Array): Float32Array {
  return a.map((value, i) => value - b[i]!);
}
