import type { MapRole, Node } from '@cqil/planner';

/** Matrices of one layer that recovery put in the place of the original's. */
export interface RefitDescription {
  readonly layer: number;
  readonly role: MapRole;
  /** How many: separate q, k and v are three. */
  readonly matrices: number;
}

/** Each refitted matrix is one product under this name, whatever it is stored in. */
const PRODUCT = /^\/cqil\/refit\/layer\.(\d+)\/(qkv|o|gate-up|down)\/MatMul/;

/** The refitted matrices of a graph by layer, within a layer in the graph's order. */
export function findRefits(nodes: readonly Node[]): RefitDescription[] {
  const found = new Map<string, RefitDescription>();
  for (const { name } of nodes) {
    const [, layer, role] = PRODUCT.exec(name) ?? [];
    if (layer === undefined) continue;
    const key = `${layer} ${role}`;
    const matrices = (found.get(key)?.matrices ?? 0) + 1;
    found.set(key, { layer: Number(layer), role: role as MapRole, matrices });
  }
  return [...found.values()].sort((a, b) => a.layer - b.layer);
}

/** "6 matrices in layers 1–2: qkv × 4, down × 2" */
export function renderRefits(refits: readonly RefitDescription[]): string {
  const sum = (list: readonly RefitDescription[]) =>
    list.reduce((total, { matrices }) => total + matrices, 0);
  const [first, last] = [refits[0]?.layer, refits.at(-1)?.layer];
  const roles = [...new Set(refits.map(({ role }) => role))].map(
    (role) => `${role} × ${sum(refits.filter((refit) => refit.role === role))}`,
  );
  const count = sum(refits);
  return (
    `${count} ${count === 1 ? 'matrix' : 'matrices'} in ` +
    `${first === last ? `layer ${first}` : `layers ${first}–${last}`}: ${roles.join(', ')}`
  );
}
