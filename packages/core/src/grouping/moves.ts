import { type Candidate, type CandidateSet, compareSelections, type Selection } from './candidates.js';

/** Groups that leave a plan (by their place in it) and candidates that come in. */
interface Edit {
  readonly out: readonly number[];
  readonly in: readonly Candidate[];
}

/**
 * The plans next to a plan: as many sequential steps, reached by one of these moves.
 *
 * - A group is replaced by another candidate of its size: another bypass, shifted, or in another free place.
 * - One step is won and one is given up. Won: a pair is added, a group grows by a layer, or two that touch merge.
 *   Given up: a pair is dissolved, a group shrinks by a layer, or one is split into two.
 *
 * In every move changed groups take any bypass they are candidates with. Without repetition, in the order of
 * `compareSelections`.
 */
export function neighbours(set: CandidateSet, selection: Selection): Selection[] {
  const groups = selection.map((id) => set.all[id]!);
  const found = new Map<string, Selection>();
  const apply = (...edits: Edit[]) => {
    const out = new Set(edits.flatMap((edit) => edit.out));
    if (out.size < edits.reduce((sum, edit) => sum + edit.out.length, 0)) return;
    const kept = groups.filter((_, place) => !out.has(place));
    const added = edits.flatMap((edit) => edit.in);
    const clashes = added.some(
      (one, i) =>
        kept.some((other) => overlap(one, other)) || added.slice(i + 1).some((other) => overlap(one, other)),
    );
    if (clashes) return;
    const result = [...kept, ...added].map((candidate) => candidate.id).sort((a, b) => a - b);
    found.set(result.join(), result);
  };

  for (const [place, group] of groups.entries()) {
    for (const other of set.all) if (other.saved === group.saved) apply({ out: [place], in: [other] });
  }
  const gains = [...winning(set, groups)];
  for (const loss of giving(set, groups)) for (const gain of gains) apply(loss, gain);
  found.delete(selection.join());
  return [...found.values()].sort(compareSelections);
}

/** Edits that save one step more. */
function* winning(set: CandidateSet, groups: readonly Candidate[]): Generator<Edit> {
  for (const candidate of set.all) {
    if (candidate.saved === 1) yield { out: [], in: [candidate] };
    for (const [place, group] of groups.entries()) {
      if (candidate.saved === group.saved + 1 && within(group, candidate)) {
        yield { out: [place], in: [candidate] };
      }
      const next = groups[place + 1];
      if (next?.first === group.end && candidate.first === group.first && candidate.end === next.end) {
        yield { out: [place, place + 1], in: [candidate] };
      }
    }
  }
}

/** Edits that save one step less. */
function* giving(set: CandidateSet, groups: readonly Candidate[]): Generator<Edit> {
  for (const [place, group] of groups.entries()) {
    const out = [place];
    if (group.saved === 1) yield { out, in: [] };
    for (const head of set.startingAt[group.first]!) {
      if (head.end >= group.end) continue;
      if (head.saved === group.saved - 1) yield { out, in: [head] };
      for (const tail of set.startingAt[head.end]!)
        if (tail.end === group.end) yield { out, in: [head, tail] };
    }
    for (const tail of set.startingAt[group.first + 1]!)
      if (tail.end === group.end) yield { out, in: [tail] };
  }
}

function overlap(a: Candidate, b: Candidate): boolean {
  return a.first < b.end && b.first < a.end;
}

function within(inner: Candidate, outer: Candidate): boolean {
  return outer.first <= inner.first && inner.end <= outer.end;
}
