import { createHash } from 'node:crypto';
import { type FileHandle, mkdir, open, readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { EnvironmentError } from '@cqil/core';
import { z } from 'zod';
import type { LinearMap, LinearMaps, MatrixReplacement } from '../linear/index.js';
import { appear } from '../write-whole.js';
import { MAP_ROLES } from './metadata.js';
import type { GroupRecovery } from './types.js';

/** What the refits depend on (model, plan, texts, settings), as JSON; refits under another header are not read. */
export type RecoveryHeader = unknown;

const count = z.int().min(0);
const role = z.enum(MAP_ROLES);

const mapSchema = z.strictObject({
  layer: count,
  role,
  input: z.string(),
  output: z.string(),
  inFeatures: count,
  outFeatures: count,
  hasBias: z.boolean(),
});

const documentSchema = z.strictObject({
  recovery: z.literal('cqil group'),
  version: z.literal(1),
  header: z.json(),
  layers: z.array(count),
  steps: z.array(
    z.strictObject({
      layers: z.array(count),
      matrix: role,
      lambda: z.number().optional(),
      before: z.number(),
      after: z.number(),
      kept: z.boolean(),
      reason: z.string().optional(),
    }),
  ),
  /** In the order in which their matrices stand in the data, each weight followed by its bias. */
  maps: z.array(mapSchema),
  /** Of the data, float32 little endian. */
  bytes: count,
  sha256: z.string(),
  /** Sha256 of this document as JSON without the seal. */
  seal: z.string(),
});

/**
 * Writes what recovery did to one group, so that a stopped run can go on: `group-<index>.json`, and the matrices, one
 * after the other in float32, as `group-<index>.f32`. Both appear complete or not at all, the JSON last.
 *
 * @param folder made where it is not there
 * @param header anything that JSON can say
 * @throws EnvironmentError `WRITE_FAILED`
 */
export async function writeGroupRecovery(
  folder: string,
  index: number,
  header: RecoveryHeader,
  group: GroupRecovery,
): Promise<void> {
  const name = path.join(folder, `group-${index}`);
  const arrays = group.replacements.flatMap(({ weight, bias }) =>
    bias === undefined ? [weight] : [weight, bias],
  );
  const hash = createHash('sha256');
  let bytes = 0;
  try {
    await mkdir(folder, { recursive: true });
    await appear(`${name}.f32`, async (handle) => {
      for (const piece of arrays.flatMap(littleEndian)) {
        hash.update(piece);
        bytes += piece.byteLength;
        await writeAll(handle, piece);
      }
    });
    const document = {
      recovery: 'cqil group',
      version: 1,
      header,
      layers: group.layers,
      steps: group.steps,
      maps: group.replacements.map(({ map }) => identityOf(map)),
      bytes,
      sha256: hash.digest('hex'),
    };
    const text = JSON.stringify({ ...document, seal: sealOf(document) });
    await appear(`${name}.json`, (handle) => writeAll(handle, Buffer.from(`${text}\n`)));
  } catch (cause) {
    if (!(cause instanceof Error && 'syscall' in cause)) throw cause;
    throw new EnvironmentError('WRITE_FAILED', `Could not write ${name}: ${cause.message}`, {
      hint: 'Check that the folder can be written and has room.',
      cause,
    });
  }
}

/**
 * Reads what earlier runs under the same header did, by index. What is damaged, cut short, of other work, or of maps
 * that the model does not have is left out, as if it had not been done yet.
 *
 * @param maps of the model that is to be recovered, as `linearMaps` finds them
 */
export async function readGroupRecoveries(
  folder: string,
  header: RecoveryHeader,
  maps: LinearMaps,
): Promise<GroupRecovery[]> {
  const names = await readdir(folder).catch(() => [] as string[]);
  const indices = names
    .flatMap((name) => /^group-(0|[1-9]\d*)\.json$/.exec(name)?.[1] ?? [])
    .map(Number)
    .sort((a, b) => a - b);
  const wanted = asJson(header);
  const groups: GroupRecovery[] = [];
  for (const index of indices) {
    const group = await readGroup(path.join(folder, `group-${index}`), wanted, maps.maps);
    if (group !== undefined) groups.push(group);
  }
  return groups;
}

async function readGroup(
  name: string,
  header: unknown,
  known: readonly LinearMap[],
): Promise<GroupRecovery | undefined> {
  const text = await readFile(`${name}.json`, 'utf8').catch(() => undefined);
  const document = text === undefined ? undefined : parseJson(text);
  const { data } = documentSchema.safeParse(document);
  if (data === undefined || data.seal !== sealOf(document as object)) return undefined;
  if (!isDeepStrictEqual(data.header, header)) return undefined;
  const maps = data.maps.map((map) =>
    known.find((candidate) => isDeepStrictEqual(identityOf(candidate), map)),
  );
  if (!maps.every((map) => map !== undefined)) return undefined;
  const sizes = maps.map(sizeOf);
  if (data.bytes !== sizes.reduce((sum, [weight, bias]) => sum + 4 * (weight + bias), 0)) return undefined;
  const arrays = await readArrays(`${name}.f32`, sizes.flat(), data.sha256);
  if (arrays === undefined) return undefined;
  const replacements = maps.map((map, i): MatrixReplacement => {
    const [weight, bias] = [arrays[2 * i] as Float32Array, arrays[2 * i + 1]];
    return { map, weight, bias: map.hasBias ? bias : undefined };
  });
  return { layers: data.layers, steps: data.steps.map(withoutGaps), replacements };
}

function sizeOf({ inFeatures, outFeatures, hasBias }: LinearMap): [weight: number, bias: number] {
  return [inFeatures * outFeatures, hasBias ? outFeatures : 0];
}

/** Optional fields that are absent, instead of there and undefined. */
function withoutGaps(step: z.infer<typeof documentSchema>['steps'][number]): GroupRecovery['steps'][number] {
  const { lambda, reason, ...rest } = step;
  return {
    ...rest,
    ...(lambda === undefined ? {} : { lambda }),
    ...(reason === undefined ? {} : { reason }),
  };
}

/** Numbers of float32, some after the others; nothing where the file has another length or another hash. */
async function readArrays(
  file: string,
  lengths: readonly number[],
  sha256: string,
): Promise<Float32Array[] | undefined> {
  const handle = await open(file, 'r').catch(() => undefined);
  if (handle === undefined) return undefined;
  try {
    const total = lengths.reduce((sum, length) => sum + 4 * length, 0);
    if ((await handle.stat()).size !== total) return undefined;
    const hash = createHash('sha256');
    const arrays: Float32Array[] = [];
    for (const length of lengths) {
      const array = new Float32Array(length);
      for (const piece of piecesOf(array)) {
        if (!(await fill(handle, piece))) return undefined;
        hash.update(piece);
        if (BIG_ENDIAN) piece.swap32();
      }
      arrays.push(array);
    }
    return hash.digest('hex') === sha256 ? arrays : undefined;
  } catch {
    return undefined;
  } finally {
    await handle.close();
  }
}

async function fill(handle: FileHandle, target: Buffer): Promise<boolean> {
  for (let done = 0; done < target.byteLength; ) {
    const { bytesRead } = await handle.read(target, done, target.byteLength - done, null);
    if (bytesRead === 0) return false;
    done += bytesRead;
  }
  return true;
}

async function writeAll(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.byteLength; ) {
    const { bytesWritten } = await handle.write(bytes, done, bytes.byteLength - done);
    done += bytesWritten;
  }
}

/** Read and written at once: one call takes less than 2 GB. */
const PIECE_BYTES = 64 * 1024 * 1024;
const BIG_ENDIAN = new Uint8Array(Uint16Array.of(1).buffer)[0] === 0;

/** The memory of an array, in pieces. */
function piecesOf({ buffer, byteOffset, byteLength }: Float32Array): Buffer[] {
  const count = Math.ceil(byteLength / PIECE_BYTES);
  return Array.from({ length: count }, (_, i) => {
    const at = i * PIECE_BYTES;
    return Buffer.from(buffer, byteOffset + at, Math.min(PIECE_BYTES, byteLength - at));
  });
}

function littleEndian(array: Float32Array): Buffer[] {
  return BIG_ENDIAN ? piecesOf(array.slice()).map((piece) => piece.swap32()) : piecesOf(array);
}

function identityOf({ layer, role, input, output, inFeatures, outFeatures, hasBias }: LinearMap) {
  return { layer, role, input, output, inFeatures, outFeatures, hasBias };
}

function sealOf(document: object): string {
  const { seal: _, ...rest } = document as { seal?: unknown };
  return createHash('sha256').update(JSON.stringify(rest)).digest('hex');
}

/** As it comes back from a file. */
function asJson(value: unknown): unknown {
  return parseJson(JSON.stringify(value) ?? 'null');
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
