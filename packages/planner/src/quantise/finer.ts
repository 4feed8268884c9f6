import type { QuantisedMatrix } from './types.js';

/**
 * The products that get 8 bits in the place of 4: as many weights as the share allows, those first that
 * need them most for each weight; of equals the first.
 *
 * @param needs by name
 * @returns their names, in the order of the graph
 */
export function chooseFiner(
  matrices: readonly QuantisedMatrix[],
  needs: ReadonlyMap<string, number>,
  share: number,
): string[] {
  const size = ({ inFeatures, outFeatures }: QuantisedMatrix) => inFeatures * outFeatures;
  const need = (matrix: QuantisedMatrix) => (needs.get(matrix.name) ?? 0) / size(matrix);
  const products = matrices.filter(({ use }) => use === 'product');
  let room = share * products.reduce((sum, matrix) => sum + size(matrix), 0);
  const chosen = new Set<QuantisedMatrix>();
  const byNeed = [...products].sort((a, b) => need(b) - need(a));
  for (const matrix of byNeed) {
    if (size(matrix) > room) continue;
    room -= size(matrix);
    chosen.add(matrix);
  }
  return products.filter((matrix) => chosen.has(matrix)).map(({ name }) => name);
}
