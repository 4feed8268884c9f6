import type { OnProgress } from '@cqil/core';
import { asFloat32, decoderFeeds, decoderInputs, type SessionOptions } from '@cqil/runtime-gpu';
import { SubmodelCutter } from '../../onnx/extract.js';
import type { Model } from '../../onnx/index.js';
import { openVariant } from '../../variant/index.js';
import { tokenShares } from '../calibrate.js';
import { MagnitudeHistogram } from './histogram.js';

/**
 * How large values of a decoder are over some text. Tokens with massive activations, the first of a text above all, are
 * held to a share as in `tokenShares`: a handful would outweigh all others, and a step that fits them fits nothing else.
 *
 * @param values of the graph, each `[..., features]`
 * @param batches token ids, `[batches][batch][sequence]`
 */
export async function observe(
  model: Model,
  values: readonly string[],
  batches: readonly (readonly (readonly number[])[])[],
  options: {
    readonly session?: SessionOptions | undefined;
    readonly signal?: AbortSignal | undefined;
    readonly onProgress?: OnProgress | undefined;
  } = {},
): Promise<Map<string, MagnitudeHistogram>> {
  const { session: settings, signal, onProgress } = options;
  const histograms = new Map(values.map((name) => [name, new MagnitudeHistogram()]));
  const part = new SubmodelCutter(model).cut([], [...histograms.keys()]);
  const session = await openVariant(part, settings);
  try {
    for (const [done, ids] of batches.entries()) {
      signal?.throwIfAborted();
      onProgress?.({ phase: 'calibrating', done, total: batches.length, unit: 'batches' });
      const mask = ids.map((row) => row.map(() => 1));
      const results = await session.run(decoderFeeds(decoderInputs(session.inputs), { ids, mask }));
      for (const [name, histogram] of histograms) {
        const value = results[name];
        if (value === undefined) continue;
        const data = asFloat32(value);
        histogram.add(data, tokenShares(data, value.dims.at(-1) ?? 1));
      }
    }
    onProgress?.({ phase: 'calibrating', done: batches.length, total: batches.length, unit: 'batches' });
  } finally {
    await session.dispose();
  }
  return histograms;
}
