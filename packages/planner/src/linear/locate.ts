import { AnatomyError } from '@cqil/core';
import { Dataflow } from '../anatomy/dataflow.js';
import { describeNode, type Model } from '../onnx/index.js';
import { type AffinePart, AffineReader, isAffine } from './affine.js';
import { Constants } from './constants.js';
import type { LinearMap } from './types.js';

/** Finds maps again in a model that has their values: the one they were found in, or one rewritten from it. */
export class MapLocator {
  readonly #reader: AffineReader;

  constructor(model: Model) {
    this.#reader = new AffineReader(new Dataflow(model.graph), new Constants(model.graph));
  }

  /** @throws AnatomyError `MAP_NOT_FOUND`, `MAP_NOT_AFFINE` */
  locate(map: LinearMap): AffinePart {
    if (this.#reader.between(map.input, map.output).length === 0) {
      const made = this.#reader.dataflow.producer(map.output) !== undefined;
      throw new AnatomyError('MAP_NOT_FOUND', `The model has no map ${nameOf(map)}.`, {
        expected: `"${map.output}", computed from "${map.input}"`,
        found: made ? 'one that is computed from something else' : 'no node that makes it',
        hint: 'Use maps that were found in this model, or in the one it was rewritten from.',
      });
    }
    const part = this.#reader.part(map.input, map.output);
    if (!isAffine(part)) throw notAffine(map, part.at === undefined ? 'no product' : describeNode(part.at));
    if (part.inFeatures === map.inFeatures && part.outFeatures === map.outFeatures) return part;
    throw new AnatomyError('MAP_NOT_FOUND', `The model has another map in the place of ${nameOf(map)}.`, {
      expected: `[${map.inFeatures}, ${map.outFeatures}]`,
      found: `[${part.inFeatures}, ${part.outFeatures}]`,
    });
  }
}

/** How an error names a map. */
export function nameOf({ layer, role, output }: LinearMap): string {
  return `${role} of layer ${layer} ("${output}")`;
}

export function notAffine(map: LinearMap, found: string): AnatomyError {
  return new AnatomyError('MAP_NOT_AFFINE', `${nameOf(map)} is no affine map of "${map.input}".`, {
    expected: 'a product with a weight, and a bias at most',
    found,
  });
}
