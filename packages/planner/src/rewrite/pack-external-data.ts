import type { Model, TensorData } from '../onnx/index.js';
import { Tensor } from '../onnx/tensor.js';

/** Smaller weights stay in the graph. */
const EXTERNAL_BYTES = 1024;

/**
 * Prepares a model for being written with its data files as the original has them: new weights go to the file that most
 * of the old ones are in, and the gaps that replaced ones leave are closed. Nothing is changed where the original has
 * all its weights in the graph.
 */
export function packExternalData(model: Model, original: Model): void {
  const sizes = new Map<string, number>();
  for (const { location, byteLength } of original.graph.initializers.values()) {
    if (location !== undefined) sizes.set(location, (sizes.get(location) ?? 0) + byteLength);
  }
  const [largest] = [...sizes].sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1));
  if (largest === undefined) return;
  for (const [name, { header, data, field, location }] of model.graph.initializers) {
    const fresh = !original.graph.initializers.has(name);
    const place = fresh && (data?.byteLength ?? 0) >= EXTERNAL_BYTES ? largest[0] : location;
    if (data === undefined || field === undefined || place === undefined) continue;
    const moved = { data: anywhere(data), field: 'external', location: place } as const;
    model.graph.initializers.set(name, Tensor.fromWire(header, moved));
  }
}

/** The same bytes; a range of a file keeps its offset when it is written, this one does not. */
function anywhere(data: TensorData): TensorData {
  const { byteLength, key } = data;
  return {
    byteLength,
    read: () => data.read(),
    ...(data.chunks === undefined ? {} : { chunks: () => data.chunks!() }),
    ...(key === undefined ? {} : { key }),
  };
}
