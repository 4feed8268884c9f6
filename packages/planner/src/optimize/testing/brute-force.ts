import type { Bypass, Plan, PlanGroup } from '@cqil/core';
import { DecoderSession } from '@cqil/runtime-gpu';
import type { TextSet } from '../../evaluate/index.js';
import type { Model } from '../../onnx/index.js';
import { openVariant } from '../../variant/index.js';

/** log softmax of all predictions of the windows, by kind: `[tokens][vocabulary]`. */
export async function predictions(model: Model, set: TextSet): Promise<Float64Array[][]> {
  const decoder = new DecoderSession(await openVariant(model, { threads: 1 }));
  const kinds: Float64Array[][] = [];
  try {
    for (const { windows } of set.kinds) {
      const rows: Float64Array[] = [];
      for (const ids of windows) {
        const { logits } = await decoder.forward({ inputIds: [ids] });
        const [, length, vocabulary] = logits.dims;
        for (let at = 0; at < length - 1; at++) {
          const row = Float64Array.from(logits.data.subarray(at * vocabulary, (at + 1) * vocabulary));
          const most = Math.max(...row);
          const sum = row.reduce((all, value) => all + Math.exp(value - most), 0);
          rows.push(row.map((value) => value - most - Math.log(sum)));
        }
      }
      kinds.push(rows);
    }
  } finally {
    await decoder.dispose();
  }
  return kinds;
}

/** Mean over kinds of the mean over tokens of KL(original ‖ planned). */
export function divergence(original: Float64Array[][], planned: Float64Array[][]): number {
  const kinds = original.map((rows, kind) => {
    const each = rows.map((p, token) => {
      const q = planned[kind]![token]!;
      return p.reduce((sum, value, id) => sum + Math.exp(value) * (value - q[id]!), 0);
    });
    return each.reduce((sum, value) => sum + value, 0) / each.length;
  });
  return kinds.reduce((sum, value) => sum + value, 0) / kinds.length;
}

/** All plans of groups of 2 to 4 with these bypasses, naively: at each layer go on alone or begin any group. */
export function* allPlans(layers: number, from = 0, groups: PlanGroup[] = []): Generator<Plan> {
  if (from === layers) {
    yield { version: 1, layers, groups };
    return;
  }
  yield* allPlans(layers, from + 1, groups);
  for (let size = 2; size <= 4 && from + size <= layers; size++) {
    const members = Array.from({ length: size }, (_, i) => from + i);
    for (const bypass of [0, 1, 'full'] as Bypass[]) {
      yield* allPlans(layers, from + size, [...groups, { layers: members, bypass }]);
    }
  }
}
