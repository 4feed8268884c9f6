import { ModelFormatError } from '@cqil/core';
import { z } from 'zod';
import type { Model } from '../../onnx/index.js';

/** Under which key a model's ONNX metadata says what its wide matrices are made of. */
export const WIDE_METADATA_KEY = 'cqil.wide';

const runSchema = z.strictObject({ from: z.int().min(0), width: z.int().min(1), at: z.int().min(0) });
const pieceSchema = z.strictObject({
  layer: z.int().min(0),
  role: z.enum(['qkv', 'o', 'gate-up', 'down']),
  /** The map of the original, by the value that it gives. */
  output: z.string().min(1),
  columns: z.array(runSchema).exactOptional(),
  row: z.int().min(0).exactOptional(),
});
const productSchema = z.strictObject({
  /** Values of the rewritten graph. */
  input: z.string().min(1),
  output: z.string().min(1),
  inFeatures: z.int().min(1),
  outFeatures: z.int().min(1),
  hasBias: z.boolean(),
  pieces: z.array(pieceSchema).min(1),
});
const branchSchema = z.strictObject({
  /** Initialiser with the gain that the shared norm keeps; absent where it keeps none. */
  gain: z.string().min(1).exactOptional(),
  products: z.array(productSchema).min(1),
});
const schema = z.array(
  z.strictObject({
    /** Of the plan. */
    group: z.int().min(0),
    layers: z.array(z.int().min(0)).min(2),
    /** Of a packed group, absent where nothing of it was merged. */
    attention: branchSchema.exactOptional(),
    ffn: branchSchema.exactOptional(),
  }),
);

/** One wide product: an affine map of the rewritten graph, and whose maps stand in it where. */
export type WideProduct = z.infer<typeof productSchema>;
export type WideBranchRecord = z.infer<typeof branchSchema>;
/** What a group of form `wide` or `packed` became. */
export type WideGroupRecord = z.infer<typeof schema>[number];

export function setWideGroups(model: Model, groups: readonly WideGroupRecord[]): void {
  if (groups.length > 0) model.setMetadata(WIDE_METADATA_KEY, JSON.stringify(groups));
}

/**
 * What a model says of its wide groups; none for a model that says nothing.
 *
 * @throws ModelFormatError `WIDE_METADATA`
 */
export function wideGroups(model: Model): WideGroupRecord[] {
  const text = model.metadata(WIDE_METADATA_KEY);
  if (text === undefined) return [];
  const parsed = schema.safeParse(parseJson(text));
  if (parsed.success) return parsed.data;
  throw new ModelFormatError('WIDE_METADATA', 'What the model says of its wide layers cannot be read.', {
    expected: `a JSON list of groups under "${WIDE_METADATA_KEY}"`,
    found: text.slice(0, 120),
    hint: 'The model was changed after it was written; write it again.',
  });
}

export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
