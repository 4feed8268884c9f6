import { seededRandom } from '@cqil/runtime-gpu';
import { analyze } from '../../anatomy/index.js';
import {
  type LinearMap,
  linearMaps,
  type MapRole,
  type MatrixReplacement,
  type MatrixStorage,
  readMatrix,
  replaceMatrices,
} from '../../linear/index.js';
import type { Model } from '../../onnx/index.js';

/** The maps of some layers in some roles. */
export function mapsOf(model: Model, layers: readonly number[], roles: readonly MapRole[]): LinearMap[] {
  const { maps } = linearMaps(model, analyze(model));
  return maps.filter(({ layer, role }) => layers.includes(layer) && roles.includes(role));
}

/** A model with matrices that are a tenth away from what they were, as recovery might leave it. */
export async function refit(
  model: Model,
  maps: readonly LinearMap[],
  storage: MatrixStorage = 'auto',
): Promise<Model> {
  const random = seededRandom(7);
  const change = (values: Float32Array) => values.map((value) => value * (1 + 0.2 * (random() - 0.5)));
  const replacements: MatrixReplacement[] = [];
  for (const map of maps) {
    const { weight, bias } = await readMatrix(model, map, { threads: 1 });
    replacements.push({ map, weight: change(weight), bias: bias && change(bias) });
  }
  return replaceMatrices(model, replacements, { storage });
}
