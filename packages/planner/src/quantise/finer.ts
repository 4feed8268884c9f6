import type { QuantisedMatrix } from './types.js';

/**
 * The products that get 8 bits in the place of 4: as many weights as the share allows, those first whose error is
 * largest for each weight; of equals the first.
 *
 * @returns their names, in the order of the graph
 */
export function chooseFiner(matrices: readonly QuantisedMatrix[], share: number): string[] {
  const size = ({ inFeatures, outFeatures }: QuantisedMatrix) => inFeatures * outFeatures;
  const products = matrices.filter(({ use }) => use === 'product');
  let room = share * products.reduce((sum, matrix) => sum + size(matrix), 0);
  const chosen = new Set<QuantisedMatrix>();
  const byNeed = [...products].sort((a, b) => b.error / size(b) - a.error / size(a));
  for (const matrix of byNeed) {
    if (size(matrix) > room) continue;
    room -= size(matrix);
    chosen.add(matrix);
  }
  return products.filter((matrix) => chosen.has(matrix)).map(({ name }) => name);
}
