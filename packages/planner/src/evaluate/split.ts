import { createHash } from 'node:crypto';
import { paragraphStart } from './borders.js';

/** A part of a text, `text.slice(start, end)`. */
export interface Stretch {
  readonly start: number;
  readonly end: number;
}

/**
 * Deals places in a row to owners such that after every place each owner has its share of what was dealt, as
 * nearly as whole numbers allow: the next one goes to who lacks most, among equals to the smaller share.
 *
 * @param shares weights of the owners, whole numbers; an owner with 0 gets nothing
 * @returns the owner of each place
 */
export function deal(count: number, shares: readonly number[]): number[] {
  const sum = shares.reduce((total, share) => total + share, 0);
  const dealt = shares.map(() => 0);
  return Array.from({ length: count }, (_, place) => {
    let chosen = -1;
    let most = Number.NEGATIVE_INFINITY;
    for (const [owner, share] of shares.entries()) {
      if (share === 0) continue;
      const lacking = share * (place + 1) - sum * dealt[owner]!;
      if (lacking > most || (lacking === most && share < shares[chosen]!)) {
        chosen = owner;
        most = lacking;
      }
    }
    dealt[chosen]! += 1;
    return chosen;
  });
}

/**
 * Cuts a text into blocks of about one length at borders of paragraphs (else sentences, else words) and deals
 * them to sets by their shares, so that every set has parts from all over the text. Between blocks of different
 * sets the paragraph at the border, or its first sentence where it is long, belongs to no set; neighbouring
 * blocks of one set are one stretch.
 *
 * @param shares weights of the sets, whole numbers
 * @returns the stretches of each set, in the order of the text
 */
export function splitText(text: string, shares: readonly number[], blocks: number): Stretch[][] {
  const owners = deal(blocks, shares);
  const length = text.length / blocks;
  const sets: Stretch[][] = shares.map(() => []);
  let start = 0;
  for (const [block, owner] of owners.entries()) {
    if (owners[block + 1] === owner) continue;
    const last = block === blocks - 1;
    const place = Math.max(start, Math.floor((block + 1) * length));
    const end = last ? text.length : whole(text, paragraphStart(text, place, Math.ceil(length / 4)));
    if (end > start) sets[owner]!.push({ start, end });
    start = last ? end : afterGap(text, end, Math.max(1, Math.ceil(length / 8)));
  }
  return sets;
}

/** Where the next set begins: behind the paragraph or sentence at a border. */
function afterGap(text: string, border: number, reach: number): number {
  const next = paragraphStart(text, border + 1, reach);
  return Math.min(text.length, whole(text, next > border + 1 ? next : border + Math.min(reach, 64)));
}

/** A place that does not cut a character of two UTF-16 units. */
function whole(text: string, place: number): number {
  const unit = text.charCodeAt(place);
  return unit >= 0xdc00 && unit <= 0xdfff ? place + 1 : place;
}

/** Shorter ones (headings, closing brackets, "Yes.") are in many texts and say nothing. */
const SHORTEST_PIECE = 40;
const LONGEST_PIECE = 1000;

/** A sentence or line, told apart by its content. */
export interface Piece {
  readonly hash: string;
  /** Characters, white space made even. */
  readonly length: number;
}

/**
 * What a text is made of: the sentences of its paragraphs, or lines where nothing ends a sentence. Cut by content
 * and not by place, so that the same passage gives the same pieces wherever it stands.
 *
 * @returns the pieces in order, short ones left out
 */
export function pieces(text: string): Piece[] {
  const found: Piece[] = [];
  const add = (part: string) => {
    const even = part.replace(/\s+/g, ' ').trim();
    if (even.length < SHORTEST_PIECE) return;
    found.push({ hash: createHash('sha256').update(even).digest('base64'), length: even.length });
  };
  for (const sentence of text.split(/\n\s*\n|(?<=[.!?])\s+|(?<=[。！？])/)) {
    if (sentence.length <= LONGEST_PIECE) add(sentence);
    else for (const line of sentence.split('\n')) add(line);
  }
  return found;
}

/** Characters of the longest passage, pieces in a row, whose pieces are all among those known. */
export function longestKnownPassage(list: readonly Piece[], known: ReadonlySet<string>): number {
  let longest = 0;
  let run = 0;
  for (const { hash, length } of list) {
    run = known.has(hash) ? run + length : 0;
    longest = Math.max(longest, run);
  }
  return longest;
}
