import { DataType, type Model, type Tensor, type TensorData } from '../onnx/index.js';
import type { VerifyCheck } from './types.js';

/** What recovery put in the place of weights of the original. */
export interface RefittedWeights {
  /** By their names in the rewritten model. */
  readonly names: ReadonlySet<string>;
  /** How many matrices they make; `undefined` where that could not be told. */
  readonly matrices: number | undefined;
  /** How many wide layers and packed groups have matrices of their own; none when absent. */
  readonly wide?: number;
}

/**
 * Whether weights of equal names are equal in both models, type, shape and every byte, and whether there are no others
 * than those and the refitted ones. Tells "made from another model" from "made wrongly". Memory is bounded.
 */
export async function checkWeights(
  original: Model,
  rewritten: Model,
  refitted: RefittedWeights = { names: new Set(), matrices: 0 },
  signal?: AbortSignal,
): Promise<VerifyCheck> {
  const { size } = original.graph.initializers;
  let shared = 0;
  const different: string[] = [];
  const unknown: string[] = [];
  for (const [name, tensor] of rewritten.graph.initializers) {
    const other = original.graph.initializers.get(name);
    if (other === undefined) {
      if (!refitted.names.has(name)) unknown.push(name);
      continue;
    }
    signal?.throwIfAborted();
    shared += 1;
    if (!(await sameTensor(tensor, other, signal))) different.push(name);
  }
  if (shared === 0 && size > 0 && (unknown.length > 0 || refitted.names.size === 0)) {
    return failed('no weight has the name of one of the original: the model was made from another one');
  }
  if (different.length > 0) {
    return failed(
      `${different.length} of ${shared} weights differ from the original's, "${different[0]}" first: ` +
        'the model was made from another one, or changed after it was rewritten',
    );
  }
  if (unknown.length > 0) {
    return failed(
      `${unknown.length} weights are neither the original's nor declared as refitted, "${unknown[0]}" first`,
    );
  }
  return {
    name: 'weights',
    status: 'passed',
    ok: true,
    detail: describe(original, rewritten, shared, refitted),
  };
}

function describe(
  original: Model,
  rewritten: Model,
  shared: number,
  { matrices, wide = 0 }: RefittedWeights,
): string {
  const { initializers } = rewritten.graph;
  const missing = [...original.graph.initializers.keys()].filter((name) => !initializers.has(name)).length;
  const left = missing === 0 ? '' : `, ${missing} of the original no longer needed`;
  const own = [
    ...(matrices === 0 || matrices === undefined
      ? []
      : [matrices === 1 ? '1 matrix was refitted' : `${matrices} matrices were refitted`]),
    ...(wide === 0
      ? []
      : [`${wide} merged ${wide === 1 ? 'group has' : 'groups have'} weights of their own`]),
  ];
  if (own.length === 0) return `${shared} weights are the original's${left}`;
  return `${own.join('; ')}; all other weights, ${shared}, are the original's${left}`;
}

function failed(detail: string): VerifyCheck {
  return { name: 'weights', status: 'failed', ok: false, code: 'ANOTHER_ORIGINAL', detail };
}

async function sameTensor(a: Tensor, b: Tensor, signal: AbortSignal | undefined): Promise<boolean> {
  if (a === b) return true;
  if (a.dataType !== b.dataType || a.dims.join() !== b.dims.join()) return false;
  if (a.byteLength !== b.byteLength) return false;
  // Strings have no raw form; no decoder's weights are strings.
  if (a.dataType === DataType.STRING) return true;
  if (a.data !== undefined && (a.data === b.data || sameKey(a.data, b.data))) return true;
  return sameBytes(piecesOf(a), piecesOf(b), signal);
}

function sameKey({ key }: TensorData, other: TensorData | undefined): boolean {
  return key !== undefined && key === other?.key;
}

async function* piecesOf(tensor: Tensor): AsyncGenerator<Uint8Array> {
  if (tensor.data?.chunks !== undefined) yield* tensor.data.chunks();
  else yield await tensor.bytes();
}

/** Compares two streams of bytes that may be cut at different places. */
async function sameBytes(
  a: AsyncGenerator<Uint8Array>,
  b: AsyncGenerator<Uint8Array>,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  try {
    let [left, right]: [Buffer, Buffer] = [Buffer.alloc(0), Buffer.alloc(0)];
    for (;;) {
      signal?.throwIfAborted();
      left = left.byteLength > 0 ? left : await next(a);
      right = right.byteLength > 0 ? right : await next(b);
      const count = Math.min(left.byteLength, right.byteLength);
      if (count === 0) return left.byteLength === right.byteLength;
      if (!left.subarray(0, count).equals(right.subarray(0, count))) return false;
      left = left.subarray(count);
      right = right.subarray(count);
    }
  } finally {
    await a.return(undefined);
    await b.return(undefined);
  }
}

/** The next piece that is not empty; an empty one at the end. */
async function next(pieces: AsyncGenerator<Uint8Array>): Promise<Buffer> {
  for (;;) {
    const { done, value } = await pieces.next();
    if (done === true) return Buffer.alloc(0);
    if (value.byteLength > 0) return Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  }
}
