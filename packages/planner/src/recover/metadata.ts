import { ModelFormatError } from '@cqil/core';
import { z } from 'zod';
import type { LinearMap, MapRole } from '../linear/index.js';
import type { Model } from '../onnx/index.js';

/** Under which key a recovered model's ONNX metadata lists the maps whose matrices are not the original's. */
export const RECOVERY_METADATA_KEY = 'cqil.recovery';

/** Nodes that stand for the matrix of a map are named `/cqil/refit/layer.<j>/<role>/…`. */
export const REFIT_PREFIX = '/cqil/refit/';

/** A map whose matrix was refitted, by the names of the original's values. */
export type RefittedMap = Pick<LinearMap, 'layer' | 'role' | 'input' | 'output'>;

export const MAP_ROLES = ['qkv', 'o', 'gate-up', 'down'] as const satisfies readonly MapRole[];

const schema = z.array(
  z.strictObject({
    layer: z.int().min(0),
    role: z.enum(MAP_ROLES),
    input: z.string().min(1),
    output: z.string().min(1),
  }),
);

/** How a refitted map's nodes are named to begin with. */
export function refitPrefix({ layer, role }: Pick<RefittedMap, 'layer' | 'role'>): string {
  return `${REFIT_PREFIX}layer.${layer}/${role}/`;
}

/** Writes into a model's metadata which maps were refitted; nothing where none was. */
export function setRefittedMaps(model: Model, maps: readonly RefittedMap[]): void {
  if (maps.length === 0) return;
  const list = [...maps]
    .sort(inOrder)
    .map(({ layer, role, input, output }): RefittedMap => ({ layer, role, input, output }));
  model.setMetadata(RECOVERY_METADATA_KEY, JSON.stringify(list));
}

/**
 * The maps that a model says were refitted, by layer and role; none for a model that says nothing.
 *
 * @throws ModelFormatError `RECOVERY_METADATA` for what is no such list, or names a map twice
 */
export function refittedMaps(model: Model): RefittedMap[] {
  const text = model.metadata(RECOVERY_METADATA_KEY);
  if (text === undefined) return [];
  const parsed = schema.safeParse(parseJson(text));
  const maps = parsed.data ?? [];
  const twice = maps.find(({ output }, index) => maps.findIndex((map) => map.output === output) !== index);
  if (parsed.success && twice === undefined) return maps.sort(inOrder);
  throw new ModelFormatError('RECOVERY_METADATA', `What the model says of its recovery cannot be read.`, {
    expected: `a JSON list of { layer, role, input, output } under "${RECOVERY_METADATA_KEY}", each map once`,
    found: twice === undefined ? text.slice(0, 120) : `"${twice.output}" twice`,
    hint: 'The model was changed after it was written; write it again.',
  });
}

/** "4 matrices of layers 1–2: 2 gate-up, 2 down" */
export function describeRefitted(maps: readonly Pick<RefittedMap, 'layer' | 'role'>[]): string {
  const layers = maps.map(({ layer }) => layer);
  const [first, last] = [Math.min(...layers), Math.max(...layers)];
  const counts = MAP_ROLES.map((role) => [maps.filter((map) => map.role === role).length, role] as const);
  const roles = counts.flatMap(([count, role]) => (count === 0 ? [] : [`${count} ${role}`])).join(', ');
  const where = first === last ? `layer ${first}` : `layers ${first}–${last}`;
  return `${maps.length} ${maps.length === 1 ? 'matrix' : 'matrices'} of ${where}: ${roles}`;
}

function inOrder(a: RefittedMap, b: RefittedMap): number {
  return (
    a.layer - b.layer ||
    MAP_ROLES.indexOf(a.role) - MAP_ROLES.indexOf(b.role) ||
    (a.output < b.output ? -1 : 1)
  );
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
