import { type FileHandle, open } from 'node:fs/promises';
import { EnvironmentError, UsageError } from '@cqil/core';
import { z } from 'zod';

const count = z.int().min(0);

const recordSchema = z.strictObject({
  batch: count,
  /** First layer of the candidates in it. */
  first: count,
  /** −ln p of the original, summed by kind. */
  original: z.array(z.strictObject({ kind: count, tokens: count, loss: z.number() })),
  candidates: z.array(
    z.strictObject({
      candidate: count,
      kinds: z.array(
        z.strictObject({
          kind: count,
          tokens: count,
          kl: z.number(),
          crossEntropy: z.number(),
          agrees: z.number(),
        }),
      ),
      /** Sum over windows. */
      hidden: z.number(),
      windows: count,
      /** Sums over positions, by member behind the first. */
      dependency: z.array(z.number()),
      positions: count,
    }),
  ),
});

/** What the candidates that begin at one layer do on one batch of windows. */
export type CostRecord = z.infer<typeof recordSchema>;

const headerSchema = z.looseObject({
  journal: z.literal('cqil costs'),
  version: z.literal(1),
  key: z.string(),
});

export interface JournalOptions {
  /** What the records depend on: model, texts, settings, candidates. */
  readonly key: string;
  /** For people who look into the file. */
  readonly about: Readonly<Record<string, unknown>>;
  /** What to do with a journal of other work; `'error'` when absent. */
  readonly other?: 'error' | 'restart';
}

/**
 * A file that records are appended to, one JSON line each, so that work that was stopped at any point goes on where
 * it was. What a kill leaves torn at the end is cut off when the file is opened again.
 */
export class Journal {
  readonly #handle: FileHandle;
  readonly #records = new Map<string, CostRecord>();

  private constructor(handle: FileHandle, records: readonly CostRecord[]) {
    this.#handle = handle;
    for (const record of records) this.#records.set(keyOf(record), record);
  }

  /**
   * @throws UsageError `COSTS_JOURNAL_OTHER` where the file holds other work or is no journal at all;
   *   EnvironmentError `WRITE_FAILED`
   */
  static async open(file: string, options: JournalOptions): Promise<Journal> {
    const header = `${JSON.stringify({ journal: 'cqil costs', version: 1, key: options.key, ...options.about })}\n`;
    const handle = await open(file, 'a+').catch((cause: Error) => {
      throw failed(file, cause);
    });
    try {
      const bytes = await handle.readFile();
      const { records, end } = readJournal(file, bytes, header, options);
      if (end < bytes.length) await handle.truncate(end);
      if (end === 0) await handle.appendFile(header);
      return new Journal(handle, records);
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  get(batch: number, first: number): CostRecord | undefined {
    return this.#records.get(keyOf({ batch, first }));
  }

  async add(record: CostRecord): Promise<void> {
    await this.#handle.appendFile(`${JSON.stringify(record)}\n`);
    // Should the machine go down, not only the process, then the line is there.
    await this.#handle.datasync();
    this.#records.set(keyOf(record), record);
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}

function keyOf({ batch, first }: Pick<CostRecord, 'batch' | 'first'>): string {
  return `${batch}/${first}`;
}

/** The whole lines of a journal up to the first that is none, and where they end. */
function readJournal(
  file: string,
  bytes: Buffer,
  header: string,
  options: JournalOptions,
): { records: CostRecord[]; end: number } {
  const headerEnd = bytes.indexOf('\n') + 1;
  // A header that was not written to its end is the beginning of ours.
  if (headerEnd === 0 && header.startsWith(bytes.toString('utf8'))) return { records: [], end: 0 };
  const found = headerSchema.safeParse(parseLine(bytes.subarray(0, headerEnd)));
  if (!found.success)
    throw otherJournal(file, 'another file', 'Give the path of a file that does not exist.');
  if (found.data.key !== options.key) {
    if (options.other === 'restart') return { records: [], end: 0 };
    throw otherJournal(
      file,
      'a journal of another model, other texts or other settings',
      'Go on with the same model, texts and settings, or delete the file to start anew.',
    );
  }
  const records: CostRecord[] = [];
  let end = headerEnd;
  for (let next = bytes.indexOf('\n', end) + 1; next > 0; next = bytes.indexOf('\n', end) + 1) {
    const record = recordSchema.safeParse(parseLine(bytes.subarray(end, next)));
    if (!record.success) break;
    records.push(record.data);
    end = next;
  }
  return { records, end };
}

function parseLine(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString('utf8'));
  } catch {
    return undefined;
  }
}

function otherJournal(file: string, found: string, hint: string): UsageError {
  return new UsageError('COSTS_JOURNAL_OTHER', `${file} cannot be continued.`, {
    expected: 'no file, or the journal of the same work',
    found,
    hint,
  });
}

function failed(file: string, cause: Error): EnvironmentError {
  return new EnvironmentError('WRITE_FAILED', `Could not write ${file}: ${cause.message}`, {
    hint: 'Check that the folder exists and can be written.',
    cause,
  });
}
