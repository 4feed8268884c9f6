import type { Plan } from '@cqil/core';

/** "30 layers in 22 sequential steps; 8 groups: 12–13 (bypass 1), …" */
export function describePlan({ layers, groups }: Plan, steps: number): string {
  const list = groups.map(({ layers: run, bypass, form }) => {
    const shape = form === undefined || form === 'branches' ? '' : `, ${form}`;
    return `${run[0]}–${run.at(-1)} (bypass ${bypass}${shape})`;
  });
  return `${layers} layers in ${steps} sequential steps; ${groups.length} groups${list.length > 0 ? `: ${list.join(', ')}` : ''}`;
}
