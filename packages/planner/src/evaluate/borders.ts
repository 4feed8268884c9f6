/**
 * The start of the next paragraph, or else sentence, or else word, within `reach` characters of a place, so that
 * what is cut there does not begin inside a word. The place itself where nothing of the kind follows.
 */
export function paragraphStart(text: string, from: number, reach = 2000): number {
  if (from === 0) return 0;
  const near = text.slice(from, from + reach);
  const found = /\n\s*\n\s*|[.!?]["']?\s+|\s+/g;
  let best: { index: number; rank: number } | undefined;
  for (const match of near.matchAll(found)) {
    const rank = /\n\s*\n/.test(match[0]) ? 2 : match[0].length > 1 && /[.!?]/.test(match[0]) ? 1 : 0;
    if (best === undefined || rank > best.rank) best = { index: match.index + match[0].length, rank };
    if (rank === 2) break;
  }
  return from + (best?.index ?? 0);
}
