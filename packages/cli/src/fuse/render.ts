import type { FusePassReport, FuseRefusal } from '@cqil/planner';
import { facts, table } from '../terminal/table.js';

/** What each pass does, for people who meet its name in a table. */
const MEANINGS: Readonly<Record<FusePassReport['name'], string>> = {
  casts: 'casts that change nothing, removed',
  'rms-norm': 'RMSNorm → SimplifiedLayerNormalization',
  'layer-norm': 'LayerNorm → LayerNormalization',
  products: 'folded Gemm → MatMul and Add',
  attention: 'attention → GroupQueryAttention',
  rotary: 'rotary embeddings, inside of it',
  'pack-qkv': 'q, k and v from one product',
  'pack-gate-up': 'gate and up from one product',
  'skip-norm': 'sum and norm → Skip…LayerNormalization',
  quantise: 'MatMul → MatMulNBits',
};

/** One line a pass: how often it applies, how many places it leaves. */
export function renderPasses(passes: readonly FusePassReport[]): string {
  return table([
    ['pass', 'applied', 'left', 'what'],
    ...passes.map(({ name, applied, refused }) => [name, `${applied}`, `${refused.length}`, MEANINGS[name]]),
  ]);
}

/** Why places were left as they are: equal reasons of one pass in one entry, with the first place. */
export function renderRefusals(passes: readonly FusePassReport[]): string {
  const entries = passes.flatMap(({ name, refused }) =>
    grouped(refused).map(([first, count]): [string, string] => {
      const more = count === 1 ? '' : ` and ${count - 1} more`;
      return [name, `${first.node}${more}: expected ${first.expected}, found ${first.found}`];
    }),
  );
  return entries.length === 0 ? 'Every place that a pass looks for was fused.' : facts(entries);
}

function grouped(refused: readonly FuseRefusal[]): [first: FuseRefusal, count: number][] {
  const groups = new Map<string, [FuseRefusal, number]>();
  for (const refusal of refused) {
    const key = `${refusal.expected}\0${refusal.found}`;
    const known = groups.get(key);
    if (known === undefined) groups.set(key, [refusal, 1]);
    else known[1] += 1;
  }
  return [...groups.values()];
}
