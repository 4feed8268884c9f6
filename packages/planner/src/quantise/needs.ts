import { DecoderSession } from '@cqil/runtime-gpu';
import { evaluateKinds, Reference } from '../evaluate/index.js';
import type { Model } from '../onnx/index.js';
import { Names } from '../rewrite/names.js';
import { openVariant } from '../variant/index.js';
import type { QuantisedBlocks } from './blocks.js';
import { putProduct } from './place.js';
import type { Settings } from './settings.js';
import type { ProductSite } from './sites.js';
import type { QuantisedMatrix } from './types.js';

/**
 * What each product would gain from 8 bits in KL divergence on development text, by name. It is measured for all products
 * of a size together, which have the same place in their layers, and dealt out among them by their errors: one alone
 * changes too little to be told from noise.
 *
 * @param model with all of them in 4 bits
 * @param inEight the blocks of 8 bits
 */
export async function measuredNeeds(
  original: Model,
  model: Model,
  sites: readonly ProductSite[],
  matrices: readonly QuantisedMatrix[],
  inEight: (site: ProductSite) => Promise<QuantisedBlocks>,
  settings: Settings & { readonly development: NonNullable<Settings['development']> },
): Promise<Map<string, number>> {
  const { development, session, signal, accuracyLevel } = settings;
  await using teacher = new DecoderSession(await openVariant(original, session));
  const reference = new Reference(teacher);
  const divergence = async (candidate: Model) => {
    await using decoder = new DecoderSession(await openVariant(candidate, session));
    const { kl } = await evaluateKinds(
      reference,
      decoder,
      development,
      signal === undefined ? {} : { signal },
    );
    return kl;
  };
  const errors = new Map(matrices.map(({ name, error }) => [name, error]));
  const sizes = new Map<string, ProductSite[]>();
  for (const site of sites) {
    const key = `${site.inFeatures}x${site.outFeatures}`;
    sizes.set(key, [...(sizes.get(key) ?? []), site]);
  }
  const before = await divergence(model);
  const needs = new Map<string, number>();
  for (const list of sizes.values()) {
    const finer = model.clone();
    const names = new Names(finer);
    for (const site of list) putProduct(finer, names, site, await inEight(site), accuracyLevel);
    const gain = Math.max(0, before - (await divergence(finer)));
    const total = list.reduce((sum, { name }) => sum + (errors.get(name) ?? 0), 0);
    for (const { name } of list) needs.set(name, total > 0 ? (gain * (errors.get(name) ?? 0)) / total : 0);
  }
  return needs;
}
