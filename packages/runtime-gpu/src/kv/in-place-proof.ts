import { CqilError } from '@cqil/core';
import type { BindableSession } from '../session/native/bindable-session.js';
import { decoderFeeds } from '../signature/feeds.js';
import { rowFeeds } from '../signature/row-feeds.js';
import type { DecoderSignature } from '../signature/signature.js';
import { asFloat32 } from '../tensor/make.js';
import type { TensorValue } from '../tensor/types.js';
import { type BufferShape, KeyValueBuffers } from './key-value-buffers.js';

/**
 * The cache entries of a graph as buffers, or `undefined` where they cannot be: a state of fixed size, a layout other
 * than `[batch, heads, positions, size]`, free sizes, or elements that are not plain numbers.
 */
export function bufferShapes(signature: DecoderSignature): BufferShape[] | undefined {
  if (signature.cache.length === 0 || signature.attentionMask === undefined) return undefined;
  const shapes: BufferShape[] = [];
  for (const { past, present, entry, sequenceAxis, batchAxis } of signature.cache) {
    const [, heads, , size] = past.shape;
    const type = past.elementType;
    if (past.shape.length !== 4 || sequenceAxis !== 2 || batchAxis !== 0) return undefined;
    if (typeof heads !== 'number' || typeof size !== 'number' || !isBufferType(type)) return undefined;
    shapes.push({ past: past.name, present, type, heads, size, group: /^\d+/.exec(entry)?.[0] ?? '' });
  }
  return shapes;
}

function isBufferType(type: string): type is BufferShape['type'] {
  return ['float32', 'float16', 'float64', 'int8', 'uint8'].includes(type);
}

/** What the proof feeds, step by step: a prompt, one token, and several at once. */
const STEPS = [[0, 1, 2], [1], [2, 0]] as const;

/**
 * Whether the attention operators of a graph append to a cache that has room behind the tokens in it, when past and
 * present are one memory (as `GroupQueryAttention` does). Nothing about the graph is assumed: the same few tokens go
 * through it in both ways, and everything must come out bit for bit the same.
 */
export async function writesInPlace(
  session: BindableSession,
  signature: DecoderSignature,
  shapes: readonly BufferShape[],
): Promise<boolean> {
  const buffers = new KeyValueBuffers(session, shapes, 1, 1);
  buffers.unlevel();
  const kept: { past: Readonly<Record<string, TensorValue>> | undefined } = { past: undefined };
  let length = 0;
  try {
    for (const ids of STEPS) {
      length += ids.length;
      const common = { ids: [[...ids]], mask: [new Array<number>(length).fill(1)] };
      const plain = await session.run(
        decoderFeeds(signature, { ...common, ...(kept.past === undefined ? {} : { past: kept.past }) }),
        [signature.logits, ...shapes.map(({ present }) => present)],
      );
      kept.past = Object.fromEntries(shapes.map(({ past, present }) => [past, plain[present]!]));
      const { feeds, outputs } = buffers.bindings();
      const inPlace = await session.execute(
        { ...decoderFeeds(signature, { ...common, past: {} }), ...feeds },
        { [signature.logits]: 'tensor', ...outputs },
      );
      if (!sameBits(plain[signature.logits]!, inPlace[signature.logits]!)) return false;
    }
    const written = buffers.copyOut([length]);
    return shapes.every(({ past }) => sameBits(kept.past![past]!, written[past]!));
  } catch (error) {
    // A graph that joins past and present by itself refuses the room behind the tokens.
    if (error instanceof CqilError) return false;
    throw error;
  } finally {
    buffers.dispose();
  }
}

/** Rows of different lengths, from their start and one token on. */
const RAGGED = [
  [[0, 1, 2, 1], [2]],
  [[2], [1]],
] as const;
/** Kernels for several rows round otherwise than those for one; a wrong place for a token is off by far more. */
const ROUNDING = 0.02;

/**
 * Whether sequences of different lengths can go through a graph together, each with its own tokens first and what pads it
 * behind them. Graphs that put a new token at the same position for all sequences cannot. Tried out like the rest.
 */
export async function takesRaggedRows(
  session: BindableSession,
  signature: DecoderSignature,
  shapes: readonly BufferShape[],
): Promise<boolean> {
  const together = new KeyValueBuffers(session, shapes, 2, 1);
  const alone = [0, 1].map(() => new KeyValueBuffers(session, shapes, 1, 1));
  const lengths = [0, 0];
  try {
    for (const rows of RAGGED) {
      const before = [...lengths];
      rows.forEach((ids, row) => {
        lengths[row] = lengths[row]! + ids.length;
      });
      const logits = await run(session, signature, together, rows, before);
      for (const [row, ids] of rows.entries()) {
        const own = await run(session, signature, alone[row]!, [ids], [before[row]!]);
        if (!(difference(logits, row, ids.length, own) < ROUNDING)) return false;
      }
    }
    return true;
  } catch (error) {
    if (error instanceof CqilError) return false;
    throw error;
  } finally {
    for (const buffers of [together, ...alone]) buffers.dispose();
  }
}

async function run(
  session: BindableSession,
  signature: DecoderSignature,
  buffers: KeyValueBuffers,
  rows: readonly (readonly number[])[],
  past: readonly number[],
): Promise<TensorValue> {
  const { feeds, outputs } = buffers.bindings();
  const results = await session.execute(
    { ...rowFeeds(signature, { ids: rows, past, keepLast: false }), ...feeds },
    { [signature.logits]: 'tensor', ...outputs },
  );
  return results[signature.logits]!;
}

/** Relative distance of a row's logits at its last token from the same alone. */
function difference(all: TensorValue, row: number, count: number, own: TensorValue): number {
  const [, positions, vocabulary] = all.dims as [number, number, number];
  const together = asFloat32(all);
  const alone = asFloat32(own);
  const at = (row * positions + count - 1) * vocabulary;
  const from = alone.length - vocabulary;
  let distance = 0;
  let size = 0;
  for (let i = 0; i < vocabulary; i++) {
    distance += (together[at + i]! - alone[from + i]!) ** 2;
    size += alone[from + i]! ** 2;
  }
  return Math.sqrt(distance / size);
}

function sameBits(a: TensorValue, b: TensorValue): boolean {
  if (a.type === 'string' || b.type === 'string') return false;
  const bytes = ({ data }: typeof a | typeof b) => Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  return a.dims.join() === b.dims.join() && bytes(a).equals(bytes(b));
}
