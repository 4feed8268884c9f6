import { createHash } from 'node:crypto';
import { type OnProgress, UsageError } from '@cqil/core';
import type { DecoderSession } from '@cqil/runtime-gpu';
import { charactersPerToken, cutWindows, textPrefix } from './cut-windows.js';
import { writeText } from './self-text.js';
import { longestKnownPassage, pieces, type Stretch, splitText } from './split.js';
import { loadText } from './text.js';
import { parseTextSpec, type TextSpec } from './text-spec.js';
import { TokenRuns } from './token-runs.js';
import type { Tokenizer } from './tokenizer.js';
import { DEFAULT_WINDOW } from './windows.js';

export const TEXT_SETS = ['calibration', 'development', 'evaluation'] as const;
export type TextSetName = (typeof TEXT_SETS)[number];

/** One text's part in a set, for the record. */
export interface TextUse {
  readonly kind: string;
  /** What the user gave, without the kind. */
  readonly spec: string;
  /** Of the whole text in UTF-8; of its token ids for text that the model wrote. */
  readonly sha256: string;
  /** Tokens of this text in the set. */
  readonly tokens: number;
}

/** What a set is, as plain JSON: two sets with the same `sha256` hold the same windows. */
export interface TextSetRecord {
  readonly name: TextSetName;
  /** Tokens of every window. */
  readonly window: number;
  readonly tokens: number;
  /** Of all windows of all kinds, in order. */
  readonly sha256: string;
  readonly texts: readonly TextUse[];
}

export interface KindWindows {
  readonly kind: string;
  /** Token ids `[windows, window]`. */
  readonly windows: readonly (readonly number[])[];
}

export interface TextSet extends TextSetRecord {
  /** In the order in which the kinds were named first. */
  readonly kinds: readonly KindWindows[];
}

/**
 * Three sets of text that have nothing in common: on `calibration` matrices are fitted, on `development` plans
 * are chosen, and on `evaluation` the result is judged.
 */
export interface TextSets {
  readonly calibration: TextSet;
  readonly development: TextSet;
  /**
   * Hands out the evaluation set, the same object at every call. A function, so that what fits or chooses
   * something cannot come by it unless it asks.
   *
   * @throws what `openModel` throws and UsageError `TEXT_SETS_OVERLAP`, for text that the model writes; the
   *   signal's reason
   */
  openEvaluation(): Promise<TextSet>;
}

export interface TextSetsOptions {
  /** `kind=path`, `path`, `kind=npm:<package>`, `npm:<package>` or `self`; see `parseTextSpec`. */
  readonly texts: readonly string[];
  /** Text for evaluation only. Without it, a fifth of every text is put aside for that. */
  readonly evaluationTexts?: readonly string[];
  /** The most tokens of each set, in equal parts by kind; 32,768, 4,096 and 8,192 when absent. */
  readonly tokens?: Partial<Readonly<Record<TextSetName, number>>>;
  /** Tokens of every window; 512 when absent. */
  readonly window?: number;
  /** Opens the model that writes the text of `self`; closed again after use. Needed for `self` only. */
  readonly openModel?: () => Promise<DecoderSession>;
  /** For what the model writes itself; 1 when absent. */
  readonly seed?: number;
  /** Where packages and relative paths are looked up; the working directory when absent. */
  readonly cwd?: string;
  readonly signal?: AbortSignal;
  readonly onProgress?: OnProgress;
}

const DEFAULT_TOKENS: Readonly<Record<TextSetName, number>> = {
  calibration: 32768,
  development: 4096,
  evaluation: 8192,
};
/** Weights of calibration, development and evaluation, by what the user gave. */
const SHARES = { together: [7, 1, 2], rest: [17, 3, 0], apart: [0, 0, 1] } as const;
/** More blocks spread the sets no better, and every border costs a paragraph. */
const MOST_BLOCKS = 100;
/** With fewer, a set would get none. */
const LEAST_BLOCKS = 10;
/** Sequences that the model writes at the same time: one for each of its openings. */
const SELF_ROWS = 16;

interface Source extends TextSpec {
  readonly text: string;
  readonly sha256: string;
  readonly charactersPerToken: number;
  /** By set, in the order of `TEXT_SETS`. */
  readonly stretches: readonly (readonly Stretch[])[];
}

interface Settings {
  readonly tokenizer: Tokenizer;
  readonly options: TextSetsOptions;
  readonly window: number;
  readonly prefix: readonly number[];
}

/**
 * Makes the three sets. Texts are cut by place into contiguous blocks, dealt to calibration, development and
 * evaluation (70, 10 and 20 of 100) with a paragraph left out between blocks of different sets; with
 * `evaluationTexts`, `texts` are dealt to the first two only (85 and 15). The same texts and options give the
 * same sets.
 *
 * The sets never mix: evaluation text that shares a passage as long as a window with the others is refused, texts
 * that repeat themselves are, and a window that has a run of tokens in common with an earlier set (see
 * `TokenRuns`) is left out. What is wrong with texts is said here, before any work is done on them; only what the
 * model writes for evaluation is written when it is opened.
 *
 * @throws UsageError `TEXT_SETS_OPTIONS`, `TEXT_SPEC`, `TEXT_SETS_OVERLAP`, `TEXT_TOO_SHORT` (less than a
 *   window of a kind for a set), and what `loadText` throws; what `openModel` throws; the signal's reason
 */
export async function openTextSets(tokenizer: Tokenizer, options: TextSetsOptions): Promise<TextSets> {
  const settings = checkOptions(tokenizer, options);
  const apart = options.evaluationTexts;
  const specs = options.texts.map(parseTextSpec);
  const evaluationSpecs = apart === undefined ? specs : apart.map(parseTextSpec);
  const sources = await load(settings, specs, apart === undefined ? SHARES.together : SHARES.rest);
  const others = apart === undefined ? [] : await load(settings, evaluationSpecs, SHARES.apart);
  checkApart(sources, others, settings.window);
  checkRepeated(sources);

  const seen = new TokenRuns(settings.window);
  const calibration = await finish(settings, fromFiles(settings, 'calibration', specs, sources, seen), seen);
  const development = await finish(settings, fromFiles(settings, 'development', specs, sources, seen), seen);
  const judged = apart === undefined ? sources : others;
  const begun = fromFiles(settings, 'evaluation', evaluationSpecs, judged, seen);
  let evaluation: Promise<TextSet> | undefined;
  return {
    calibration,
    development,
    openEvaluation: () => {
      evaluation ??= finish(settings, begun, seen).catch((error: unknown) => {
        evaluation = undefined;
        throw error;
      });
      return evaluation;
    },
  };
}

/** A set without its windows, for a file. */
export function textSetRecord({ name, window, tokens, sha256, texts }: TextSet): TextSetRecord {
  return { name, window, tokens, sha256, texts };
}

async function load(
  { tokenizer, options, window }: Settings,
  specs: readonly TextSpec[],
  shares: readonly number[],
): Promise<Source[]> {
  const where = options.cwd === undefined ? {} : { cwd: options.cwd };
  const sources: Source[] = [];
  for (const { kind, spec } of specs) {
    if (spec === 'self') continue;
    options.signal?.throwIfAborted();
    const { text, sha256 } = await loadText(spec, where);
    const perToken = charactersPerToken(tokenizer, text);
    const fits = Math.floor(text.length / perToken / (1.5 * window));
    const blocks = shares === SHARES.apart ? 1 : Math.min(MOST_BLOCKS, Math.max(LEAST_BLOCKS, fits));
    sources.push({
      kind,
      spec,
      text,
      sha256,
      charactersPerToken: perToken,
      stretches: splitText(text, shares, blocks),
    });
  }
  return sources;
}

/** Evaluation text that is among the other texts: the whole, or a passage as long as a window. */
function checkApart(sources: readonly Source[], others: readonly Source[], window: number): void {
  if (others.length === 0) return;
  const known = new Set(sources.flatMap(({ text }) => pieces(text).map(({ hash }) => hash)));
  for (const { sha256, spec, text, charactersPerToken } of others) {
    const same = sources.find((source) => source.sha256 === sha256);
    if (same !== undefined) throw overlap(`${same.spec} and ${spec} are the same text`);
    const length = longestKnownPassage(pieces(text), known);
    if (length >= window * charactersPerToken) {
      throw overlap(`a passage of ${length} characters of ${spec} that is in the other texts, too`);
    }
  }
}

/** Collections repeat some of their texts; more than this share of a set is no accident. */
const MOST_REPEATED = 0.1;

/**
 * Texts that say the same over and over, so that cutting by place does not tell sets apart. What less of it there
 * is (licence headers, a speech printed twice) `TokenRuns` keeps out of the windows.
 */
function checkRepeated(sources: readonly Source[]): void {
  const known = new Set<string>();
  for (const [set, name] of TEXT_SETS.entries()) {
    const list = sources.flatMap(({ text, stretches }) =>
      stretches[set]!.flatMap(({ start, end }) => pieces(text.slice(start, end))),
    );
    const characters = (some: typeof list) => some.reduce((sum, { length }) => sum + length, 0);
    const repeated = characters(list.filter(({ hash }) => known.has(hash)));
    if (repeated > MOST_REPEATED * characters(list)) {
      const percent = Math.round((100 * repeated) / characters(list));
      throw overlap(`${percent} % of the text for ${name} stands elsewhere in the texts, too`);
    }
    for (const { hash } of list) known.add(hash);
  }
}

interface Begun {
  readonly name: TextSetName;
  readonly specs: readonly TextSpec[];
  /** How many windows each spec should give. */
  readonly counts: readonly number[];
  /** Windows by spec; `undefined` for what the model is to write. */
  readonly windows: readonly (number[][] | undefined)[];
  readonly sha256: readonly (string | undefined)[];
}

/** The windows of a set that come from files and packages. */
function fromFiles(
  settings: Settings,
  name: TextSetName,
  specs: readonly TextSpec[],
  sources: readonly Source[],
  seen: TokenRuns,
): Begun {
  const { tokenizer, window, prefix } = settings;
  const set = TEXT_SETS.indexOf(name);
  const counts = windowCounts(specs, settings.options.tokens?.[name] ?? DEFAULT_TOKENS[name], window);
  const rest = [...sources];
  const short = new Map<string, { tokens: number; refused: number }>();
  const taken = specs.map(({ spec }, i) => {
    if (spec === 'self') return undefined;
    const source = rest.shift()!;
    const cut = cutWindows(tokenizer, source.text, source.stretches[set]!, {
      window,
      prefix,
      count: counts[i]!,
      charactersPerToken: source.charactersPerToken,
      refuse: (ids) => seen.sharedWith(ids.slice(prefix.length)),
    });
    const before = short.get(source.kind) ?? { tokens: 0, refused: 0 };
    short.set(source.kind, {
      tokens: before.tokens + cut.tokens,
      refused: before.refused + cut.refused,
    });
    return { source, cut };
  });
  const gives = (kind: string) =>
    specs.some(
      (spec, i) => spec.kind === kind && (taken[i] === undefined || taken[i].cut.windows.length > 0),
    );
  for (const [kind, { tokens, refused }] of short) {
    if (gives(kind)) continue;
    if (refused > 0) throw overlap(`all that "${kind}" has for ${name} is in another set, too`);
    throw tooShort(settings, kind, name, wantedTokens(specs, counts, kind) * window, tokens);
  }
  return {
    name,
    specs,
    counts,
    windows: taken.map((one) => one?.cut.windows),
    sha256: taken.map((one) => one?.source.sha256),
  };
}

/** Adds what the model writes itself, and remembers all of it. */
async function finish(settings: Settings, begun: Begun, seen: TokenRuns): Promise<TextSet> {
  const { name, specs, counts } = begun;
  const { window, prefix } = settings;
  const texts: TextUse[] = [];
  const byKind = new Map<string, number[][]>();
  for (const [i, { kind, spec }] of specs.entries()) {
    const windows = begun.windows[i] ?? (await write(settings, name, counts[i]!, i, seen));
    const sha256 = begun.sha256[i] ?? hash(windows);
    texts.push({ kind, spec, sha256, tokens: windows.length * window });
    byKind.set(kind, [...(byKind.get(kind) ?? []), ...windows]);
  }
  const kinds = [...byKind].map(([kind, windows]) => ({ kind, windows }));
  // Only once all is there, so that a set that could not be opened leaves no trace behind.
  for (const { windows } of kinds) for (const ids of windows) seen.add(ids.slice(prefix.length));
  return {
    name,
    window,
    tokens: texts.reduce((sum, { tokens }) => sum + tokens, 0),
    sha256: hash(kinds.map(({ kind, windows }) => [kind, windows])),
    texts,
    kinds,
  };
}

/** Text in the model's own words: sequences from all openings, of other seeds for every set. */
async function write(
  { tokenizer, options, window, prefix }: Settings,
  name: TextSetName,
  count: number,
  place: number,
  seen: TokenRuns,
): Promise<number[][]> {
  if (count === 0) return [];
  if (options.openModel === undefined) {
    throw badOption('openModel', 'a way to open the model that writes the text of "self"', 'none');
  }
  const decoder = await options.openModel();
  const total = count * window;
  const rows: number[][] = [];
  try {
    for (let batch = 0; rows.length < count; batch++) {
      const before = rows.length;
      const sequences = Math.min(SELF_ROWS, count - before);
      const written = await writeText(decoder, tokenizer, {
        tokens: sequences * window,
        sequences,
        seed: selfSeed(options.seed ?? 1, TEXT_SETS.indexOf(name), place, batch),
        ...(options.signal === undefined ? {} : { signal: options.signal }),
        onProgress: ({ phase, done }) =>
          options.onProgress?.({ phase, done: before * window + done, total, unit: 'tokens' }),
      });
      rows.push(...written);
    }
  } finally {
    await decoder.dispose();
  }
  const kept = rows.filter((ids) => !seen.sharedWith(ids.slice(prefix.length)));
  if (kept.length === 0) throw overlap(`the model writes for ${name} what it wrote for another set`);
  return kept;
}

/** Different for every set, text and batch: a seed repeated would repeat the text. */
function selfSeed(seed: number, set: number, place: number, batch: number): number {
  const digest = createHash('sha256').update(`${seed}/${set}/${place}/${batch}`).digest();
  return digest.readUInt32LE(0);
}

/** Windows by text: equal parts by kind, one at least, and of those equal parts by text. */
function windowCounts(specs: readonly TextSpec[], tokens: number, window: number): number[] {
  const kinds = new Set(specs.map(({ kind }) => kind)).size;
  const ofKind = Math.max(1, Math.floor(tokens / kinds / window));
  return specs.map(({ kind }, i) => {
    const alike = specs.filter((spec) => spec.kind === kind).length;
    const before = specs.slice(0, i).filter((spec) => spec.kind === kind).length;
    return Math.ceil(((before + 1) * ofKind) / alike) - Math.ceil((before * ofKind) / alike);
  });
}

function wantedTokens(specs: readonly TextSpec[], counts: readonly number[], kind: string): number {
  return specs.reduce((sum, spec, i) => (spec.kind === kind ? sum + counts[i]! : sum), 0);
}

function hash(value: unknown): string {
  return createHash('sha256').update(JSON.stringify(value)).digest('hex');
}

function checkOptions(tokenizer: Tokenizer, options: TextSetsOptions): Settings {
  const { texts, evaluationTexts, window = DEFAULT_WINDOW } = options;
  if (texts.length === 0) throw badOption('texts', 'one text or more', 'none');
  if (evaluationTexts?.length === 0) throw badOption('evaluationTexts', 'one text or more', 'none');
  const prefix = textPrefix(tokenizer);
  const least = prefix.length + 2;
  if (!Number.isInteger(window) || window < least) {
    throw badOption('window', `a whole number of ${least} or more`, String(window));
  }
  for (const name of TEXT_SETS) {
    const tokens = options.tokens?.[name] ?? DEFAULT_TOKENS[name];
    if (!(Number.isInteger(tokens) && tokens >= 1)) {
      throw badOption(`tokens.${name}`, 'a whole number of 1 or more', String(tokens));
    }
  }
  return { tokenizer, options, window, prefix };
}

function badOption(option: string, expected: string, found: string): UsageError {
  return new UsageError('TEXT_SETS_OPTIONS', `The option "${option}" makes no sense.`, { expected, found });
}

function overlap(found: string): UsageError {
  return new UsageError('TEXT_SETS_OVERLAP', 'The same text would be calibrated on and judged by.', {
    expected: 'texts for calibration, development and evaluation that have nothing in common',
    found,
    hint: 'Take out what is there twice, or give other text for evaluation.',
  });
}

function tooShort(
  { options, window }: Settings,
  kind: string,
  name: TextSetName,
  wanted: number,
  found: number,
): UsageError {
  const share =
    options.evaluationTexts === undefined ? { development: 'a tenth', evaluation: 'a fifth' } : {};
  const part = { calibration: undefined, development: undefined, evaluation: undefined, ...share }[name];
  const why = part === undefined ? '' : ` (${name} gets ${part} of every text)`;
  return new UsageError('TEXT_TOO_SHORT', `The text of kind "${kind}" is too short for ${name}.`, {
    expected: `${wanted} tokens, and ${window} in one piece at least${why}`,
    found: `${found} tokens`,
    hint: `Give a longer text, or windows of fewer tokens than ${window}.`,
  });
}
