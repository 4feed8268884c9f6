import { DataType, FileRange, type Model, type Tensor } from '../onnx/index.js';
import type { VerifyCheck } from './types.js';

/** Read of each weight; a few thousand numbers tell two models apart. */
const SAMPLE_BYTES = 16 * 1024;

/**
 * Whether weights of equal names are equal in both models: type, shape, and the bytes at their beginning. Tells
 * "made from another model" from "made wrongly".
 */
export async function checkWeights(
  original: Model,
  rewritten: Model,
  signal?: AbortSignal,
): Promise<VerifyCheck> {
  let shared = 0;
  const different: string[] = [];
  for (const [name, tensor] of rewritten.graph.initializers) {
    const other = original.graph.initializers.get(name);
    if (other === undefined) continue;
    signal?.throwIfAborted();
    shared += 1;
    if (!(await sameStart(tensor, other))) different.push(name);
  }
  const missing = [...original.graph.initializers.keys()].filter(
    (name) => !rewritten.graph.initializers.has(name),
  );
  if (different.length === 0 && (shared > 0 || original.graph.initializers.size === 0)) {
    const left = missing.length === 0 ? '' : `, ${missing.length} of the original no longer needed`;
    return {
      name: 'weights',
      status: 'passed',
      ok: true,
      detail: `${shared} weights are the original's${left}`,
    };
  }
  return {
    name: 'weights',
    status: 'failed',
    ok: false,
    code: 'ANOTHER_ORIGINAL',
    detail:
      shared === 0
        ? 'no weight has the name of one of the original: the model was made from another one'
        : `${different.length} of ${shared} weights differ from the original's, "${different[0]}" first: ` +
          'the model was made from another one, or changed after it was rewritten',
  };
}

async function sameStart(a: Tensor, b: Tensor): Promise<boolean> {
  if (a.dataType !== b.dataType || a.dims.join() !== b.dims.join()) return false;
  if (a.byteLength !== b.byteLength) return false;
  // Strings have no raw form; no decoder's weights are strings.
  if (a.dataType === DataType.STRING) return true;
  const [left, right] = [await start(a), await start(b)];
  return left.byteLength === right.byteLength && left.every((byte, index) => byte === right[index]);
}

async function start(tensor: Tensor): Promise<Uint8Array> {
  const { data } = tensor;
  if (data instanceof FileRange) {
    const part = new FileRange(data.file, data.offset, Math.min(SAMPLE_BYTES, data.byteLength));
    return part.read();
  }
  // What was read into memory already costs nothing more.
  const bytes = await tensor.bytes();
  return bytes.subarray(0, SAMPLE_BYTES);
}
