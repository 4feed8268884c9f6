import { z } from 'zod';
import { UsageError } from '../errors.js';
import { formatPath, show, valueAt } from '../plan/path.js';
import { SMALL_OPERATORS } from './kernels.js';
import { ELEMENT_TYPES } from './shape.js';

const text = z.string().min(1).max(200);
const positive = z.number().positive();
const notNegative = z.number().nonnegative();
const share = z.number().positive().max(1);

const productSchema = z
  .strictObject({
    type: z.enum(ELEMENT_TYPES),
    m: z.int().positive(),
    k: z.int().positive(),
    n: z.int().positive(),
    /** Stored bits a weight. */
    weightBits: positive,
    seconds: positive,
  })
  .meta({ description: 'A measured matrix product [m, k] × [k, n], without what it costs to start it.' });

const attentionSchema = z
  .strictObject({
    type: z.enum(ELEMENT_TYPES),
    /** New tokens, and those in the cache before. */
    tokens: z.int().positive(),
    context: z.int().nonnegative(),
    heads: z.int().positive(),
    kvHeads: z.int().positive(),
    headDim: z.int().positive(),
    seconds: positive,
  })
  .meta({ description: 'A measured attention over a cache, without what it costs to start it.' });

const elementwiseSchema = z
  .strictObject({
    /** Read and written. */
    bytes: positive,
    seconds: positive,
  })
  .meta({ description: 'A measured element-wise kernel, without what it costs to start it.' });

const deviceSchema = z.strictObject({
  id: text.meta({ description: 'What placements and links call the device.' }),
  name: text.exactOptional(),
  kind: z.enum(['cpu', 'gpu']),
  memoryBytes: positive.meta({ description: 'Memory for weights and caches, bytes.' }),
  peakFlops: z
    .partialRecord(z.enum(ELEMENT_TYPES), positive)
    .meta({ description: 'Peak rate of matrix products by element type, FLOP/s (a multiply-add is two).' }),
  computeEfficiency: share.meta({ description: 'Share of the peak that products of any size reach.' }),
  memoryBytesPerSecond: positive.meta({ description: 'Memory bandwidth, bytes/s.' }),
  memoryEfficiency: z
    .array(z.strictObject({ bytes: positive, share: positive }))
    .min(1)
    .meta({
      description:
        'Share of the bandwidth that a kernel reaches by the bytes that it moves; between points interpolated over ' +
        'the logarithm. Above 1 where a cache is faster than memory.',
    }),
  launch: z.enum(['ahead', 'serial']).meta({
    description:
      'ahead: a host thread starts kernels while earlier ones run (a GPU). serial: a kernel is started when the one ' +
      'before it has ended (a CPU).',
  }),
  launchSeconds: notNegative.meta({ description: "Host time to start a kernel: the runtime's cost a node." }),
  kernelSeconds: notNegative.meta({
    description: 'What a kernel takes on the device however little it does.',
  }),
  runSeconds: notNegative.meta({ description: 'Cost of a run of the runtime: one a pass and exchange.' }),
  products: z.array(productSchema).max(100_000).exactOptional(),
  attention: z.array(attentionSchema).max(100_000).exactOptional(),
  elementwise: z
    .array(elementwiseSchema)
    .max(1000)
    .exactOptional()
    .meta({ description: 'By rising bytes; what they move lies in caches more often than weights do.' }),
  norms: z
    .array(elementwiseSchema)
    .max(1000)
    .exactOptional()
    .meta({ description: 'The same of norms that add to the stream, which take longer for as many bytes.' }),
  operators: z
    .partialRecord(z.enum(SMALL_OPERATORS), z.array(elementwiseSchema).max(1000))
    .exactOptional()
    .meta({ description: 'The same of activations, of splits and of sums over blocks.' }),
});

const linkSchema = z.strictObject({
  between: z.union([z.literal('all'), z.tuple([text, text])]).meta({
    description: 'Two devices, or all pairs that no other link names.',
  }),
  bytesPerSecond: positive.meta({ description: 'Bandwidth in one direction, bytes/s.' }),
  protocols: z
    .array(
      z.strictObject({
        name: text.exactOptional(),
        /** Fixed cost of an exchange. */
        baseSeconds: notNegative,
        /** Cost of a hop of the ring. */
        hopSeconds: notNegative,
        /** Share of the bandwidth that the protocol reaches. */
        share,
      }),
    )
    .min(1)
    .meta({ description: 'Ways to exchange data; the fastest for the size at hand is taken.' }),
  bus: text
    .exactOptional()
    .meta({ description: 'Name of a medium that carries one exchange at a time; unnamed: no contention.' }),
});

/** The profile document, version 1, as far as one field at a time can tell; `parseProfile` checks the rest. */
export const profileSchema = z
  .strictObject({
    version: z.literal(1),
    name: text,
    sources: z
      .array(z.string())
      .exactOptional()
      .meta({ description: 'Where the numbers come from: datasheets, or how they were measured.' }),
    devices: z.array(deviceSchema).min(1).max(1024),
    links: z.array(linkSchema).max(100_000),
  })
  .meta({ title: 'CQIL machine profile', description: 'What devices and their links cost.' });

/** Times of a machine: its devices and the links between them. Seconds, bytes and FLOP/s throughout. */
export type MachineProfile = z.infer<typeof profileSchema>;
export type DeviceProfile = MachineProfile['devices'][number];
export type LinkProfile = MachineProfile['links'][number];
export type MeasuredProduct = z.infer<typeof productSchema>;
export type MeasuredAttention = z.infer<typeof attentionSchema>;
export type MeasuredElementwise = z.infer<typeof elementwiseSchema>;

/**
 * Reads a machine profile.
 *
 * @param document JSON text, or the value that it stands for.
 * @throws UsageError `PROFILE_NOT_JSON`, `PROFILE_VERSION`, `PROFILE_SCHEMA`
 */
export function parseProfile(document: unknown): MachineProfile {
  const value = typeof document === 'string' ? parseText(document) : document;
  const version = valueAt(value, ['version']);
  if (typeof version === 'number' && version !== 1) {
    throw new UsageError('PROFILE_VERSION', 'This release cannot read profiles of this version.', {
      expected: '1',
      found: String(version),
      hint: 'measure the machine anew, or use another release',
    });
  }
  const parsed = profileSchema.safeParse(value);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    const path = issue?.path ?? [];
    throw schemaError(formatPath(path), issue?.message ?? 'a profile', show(valueAt(value, path)));
  }
  checkNames(parsed.data);
  for (const [index, device] of parsed.data.devices.entries()) {
    const { memoryEfficiency, elementwise = [], norms = [], operators = {} } = device;
    checkRising(`devices[${index}].memoryEfficiency`, memoryEfficiency);
    checkRising(`devices[${index}].elementwise`, elementwise);
    checkRising(`devices[${index}].norms`, norms);
    for (const [name, points] of Object.entries(operators)) {
      checkRising(`devices[${index}].operators.${name}`, points);
    }
  }
  return parsed.data;
}

function checkRising(path: string, points: readonly { readonly bytes: number }[]): void {
  for (let i = 1; i < points.length; i++) {
    if (points[i]!.bytes > points[i - 1]!.bytes) continue;
    throw schemaError(
      `${path}[${i}].bytes`,
      `more than ${points[i - 1]!.bytes}, the point before`,
      String(points[i]!.bytes),
    );
  }
}

function checkNames({ devices, links }: MachineProfile): void {
  const known = new Set<string>();
  for (const [index, { id }] of devices.entries()) {
    if (known.has(id)) throw schemaError(`devices[${index}].id`, 'an id of its own', show(id));
    known.add(id);
  }
  for (const [index, { between }] of links.entries()) {
    if (between === 'all') continue;
    for (const [end, id] of between.entries()) {
      if (known.has(id)) continue;
      throw schemaError(`links[${index}].between[${end}]`, 'the id of a device of the profile', show(id));
    }
    if (between[0] === between[1]) {
      throw schemaError(`links[${index}].between`, 'two different devices', show(between[0]));
    }
  }
}

function parseText(document: string): unknown {
  try {
    return JSON.parse(document);
  } catch (cause) {
    throw new UsageError('PROFILE_NOT_JSON', 'The profile is not JSON.', {
      expected: 'a JSON document',
      found: cause instanceof Error ? cause.message : String(cause),
      hint: 'check that it is the right file',
      cause,
    });
  }
}

function schemaError(path: string, expected: string, found: string): UsageError {
  const at = path === '' ? '' : `${path}: `;
  return new UsageError('PROFILE_SCHEMA', `${at}not what a machine profile has here`, { expected, found });
}

/**
 * A device of a profile.
 *
 * @throws UsageError `PROFILE_NO_DEVICE`
 */
export function deviceOf(profile: MachineProfile, id: string): DeviceProfile {
  const device = profile.devices.find((one) => one.id === id);
  if (device !== undefined) return device;
  throw new UsageError('PROFILE_NO_DEVICE', `The profile ${profile.name} has no device ${id}.`, {
    expected: `one of ${profile.devices.map((one) => one.id).join(', ')}`,
    found: id,
  });
}
