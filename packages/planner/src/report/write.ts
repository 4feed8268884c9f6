import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { EnvironmentError } from '@cqil/core';
import type { OptimizeReport } from '../optimize/document.js';
import { writeWhole } from '../write-whole.js';
import { CARD_MARK, renderModelCard } from './card.js';
import { checkReport, formatReport } from './document.js';
import { renderReportPage } from './page.js';

/** The names under which a model's folder holds its report. */
export const REPORT_FILE = 'cqil.report.json';
export const REPORT_PAGE_FILE = 'cqil.report.html';
export const CARD_FILE = 'README.md';

/** What was written, absolute. */
export interface WrittenReport {
  readonly json: string;
  readonly page: string;
  readonly card: string;
  /** Where the card of the source model is kept, if the folder had one. */
  readonly originalCard?: string;
}

/**
 * Writes a report into a model's folder: the document, the page made from it, and the card as README.md. A README.md
 * that somebody else wrote is kept as README.original.md (README.original-2.md, … where that name is taken by another
 * text). Each file gets its name when it is complete.
 *
 * @param folder that exists
 * @throws UsageError `REPORT_INVALID` before anything is written; EnvironmentError `WRITE_FAILED`
 */
export async function writeReport(report: OptimizeReport, folder: string): Promise<WrittenReport> {
  const root = path.resolve(folder);
  const checked = checkReport(report);
  const written = {
    json: path.join(root, REPORT_FILE),
    page: path.join(root, REPORT_PAGE_FILE),
    card: path.join(root, CARD_FILE),
  };
  try {
    const original = await keepOriginal(root);
    await writeWhole(written.json, formatReport(checked));
    await writeWhole(written.page, renderReportPage(checked));
    await writeWhole(
      written.card,
      renderModelCard(checked, original === undefined ? {} : { originalCard: path.basename(original) }),
    );
    return { ...written, ...(original === undefined ? {} : { originalCard: original }) };
  } catch (cause) {
    if (!(cause instanceof Error && 'syscall' in cause)) throw cause;
    throw new EnvironmentError('WRITE_FAILED', `Could not write the report into ${root}: ${cause.message}`, {
      hint: 'Check that the folder exists and can be written.',
      cause,
    });
  }
}

/** Copies a README.md that is not ours, or finds the copy an earlier report made. */
async function keepOriginal(root: string): Promise<string | undefined> {
  const current = await read(path.join(root, CARD_FILE));
  const foreign = current !== undefined && !current.includes(CARD_MARK) ? current : undefined;
  for (let number = 1, last: string | undefined; ; number++) {
    const file = path.join(root, number === 1 ? 'README.original.md' : `README.original-${number}.md`);
    const kept = await read(file);
    if (kept === undefined && foreign === undefined) return last;
    if (kept === undefined) await writeWhole(file, foreign!);
    if (foreign !== undefined && (kept === undefined || kept.equals(foreign))) return file;
    last = file;
  }
}

async function read(file: string): Promise<Buffer | undefined> {
  try {
    return await readFile(file);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw cause;
  }
}
