import { z } from 'zod';

/** The file of a partition's folder that says what it consists of. */
export const PARTITION_FILE = 'cqil.partition.json';

const deviceSchema = z.string().regex(/^[a-z]+:\d+$/, 'a device is written as cpu:0');

const inputSchema = z.strictObject({
  name: z.string().min(1),
  /** The part that makes the value; an input of the whole model when absent. */
  from: z.string().min(1).optional(),
});

const partSchema = z.strictObject({
  name: z.string().min(1),
  /** Relative to the partition's folder. */
  file: z.string().min(1),
  /** Where it runs: on the first of them, which the others lend their threads where there are several. */
  devices: z.array(deviceSchema).min(1),
  /** What it computes, for people. */
  holds: z.string(),
  inputs: z.array(inputSchema),
  outputs: z.array(z.string().min(1)).min(1),
});

const dimSchema = z.union([z.number().int().nonnegative(), z.string()]);

const manifestSchema = z.strictObject({
  version: z.literal(1),
  /** The planned model, for people. */
  model: z.string(),
  weights: z.strictObject({
    /** What the places in the parts are relative to; relative to the partition's folder. */
    folder: z.string(),
    /** Files that the parts refer to, and how long they were. */
    files: z.array(z.strictObject({ path: z.string().min(1), bytes: z.number().int().nonnegative() })),
  }),
  devices: z.array(deviceSchema).min(1),
  /** Inputs and outputs of the whole model, in its order. */
  inputs: z.array(z.string().min(1)).min(1),
  outputs: z.array(z.string().min(1)).min(1),
  /** In an order in which each part comes behind those that it needs; a device takes its own in this order. */
  parts: z.array(partSchema).min(1),
  /** Shapes of the values that go from part to part, where they are known: numbers, and the names of free sizes. */
  shapes: z.record(z.string(), z.array(dimSchema)),
  groups: z.array(
    z.strictObject({
      layers: z.array(z.number().int().nonnegative()).min(2),
      bypass: z.union([z.number().int().nonnegative(), z.literal('full')]),
      /** How often the group's branches wait for each other, what joins them included. */
      exchanges: z.number().int().positive(),
    }),
  ),
});

/** How a planned model is cut into graphs for several devices. */
export type PartitionManifest = z.infer<typeof manifestSchema>;
export type PartitionPart = PartitionManifest['parts'][number];

/** What is wrong with a document that should be a manifest, or the manifest. */
export function readManifest(
  document: unknown,
): { readonly manifest: PartitionManifest } | { readonly wrong: string } {
  const parsed = manifestSchema.safeParse(document);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    return { wrong: `${issue?.path.join('.') || 'the document'}: ${issue?.message ?? 'invalid'}` };
  }
  const wrong = inconsistency(parsed.data);
  return wrong === undefined ? { manifest: parsed.data } : { wrong };
}

/** What a schema cannot say: parts name devices, inputs and each other rightly, and none waits for a later one. */
function inconsistency(manifest: PartitionManifest): string | undefined {
  const feeds = new Set(manifest.inputs);
  const before = new Map<string, ReadonlySet<string>>();
  for (const part of manifest.parts) {
    if (before.has(part.name)) return `there are two parts "${part.name}"`;
    const elsewhere = part.devices.find((device) => !manifest.devices.includes(device));
    if (elsewhere !== undefined) return `part "${part.name}" is on ${elsewhere}, which is not listed`;
    for (const { name, from } of part.inputs) {
      if (from === undefined && !feeds.has(name)) return `"${name}" is no input of the model`;
      if (from !== undefined && before.get(from)?.has(name) !== true) {
        return `part "${part.name}" reads "${name}" from "${from}", which does not make it before`;
      }
    }
    before.set(part.name, new Set(part.outputs));
  }
  const made = new Set(manifest.parts.flatMap(({ outputs }) => outputs));
  const missing = manifest.outputs.find((name) => !made.has(name));
  return missing === undefined ? undefined : `no part makes the output "${missing}"`;
}
