import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { renderModelCard } from './card.js';
import { formatReport, readReport } from './document.js';
import { renderReportPage } from './page.js';
import { madeUpReport } from './testing/made-up-report.js';
import { writeReport } from './write.js';

const REPORT = madeUpReport();
const FILES = ['README.md', 'cqil.report.html', 'cqil.report.json'];

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'cqil-report-'));
});
afterEach(() => rm(folder, { recursive: true }));

const text = (name: string) => readFile(path.join(folder, name), 'utf8');

describe('a written report', () => {
  it('is the document, the page and the card, and nothing else', async () => {
    const written = await writeReport(REPORT, folder);
    expect((await readdir(folder)).sort()).toEqual(FILES);
    expect(await readReport(written.json)).toEqual(REPORT);
    expect(await text('cqil.report.html')).toBe(renderReportPage(REPORT));
    expect(await text('README.md')).toBe(renderModelCard(REPORT));
    expect(written).toEqual({
      json: path.join(folder, 'cqil.report.json'),
      page: path.join(folder, 'cqil.report.html'),
      card: path.join(folder, 'README.md'),
    });
  });

  it('can be made again from its document', async () => {
    const { json } = await writeReport(REPORT, folder);
    const page = await text('cqil.report.html');
    const again = await readReport(json);
    expect(renderReportPage(again)).toBe(page);
    expect(formatReport(again)).toBe(await text('cqil.report.json'));
  });

  it('keeps the card of the source model, once, however often it is written', async () => {
    await writeFile(path.join(folder, 'README.md'), '# The source model\n');
    const written = await writeReport(REPORT, folder);
    expect(written.originalCard).toBe(path.join(folder, 'README.original.md'));
    expect(await text('README.md')).toContain('[README.original.md](README.original.md)');
    const card = await text('README.md');
    const again = await writeReport(REPORT, folder);
    expect(again).toEqual(written);
    expect(await text('README.md')).toBe(card);
    expect(await text('README.original.md')).toBe('# The source model\n');
    expect((await readdir(folder)).sort()).toEqual([
      ...FILES.slice(0, 1),
      'README.original.md',
      ...FILES.slice(1),
    ]);
  });

  it('never overwrites a kept card with another', async () => {
    await writeFile(path.join(folder, 'README.original.md'), 'first');
    await writeFile(path.join(folder, 'README.md'), 'second');
    const { originalCard } = await writeReport(REPORT, folder);
    expect(path.basename(originalCard!)).toBe('README.original-2.md');
    expect(await text('README.original.md')).toBe('first');
    expect(await text('README.original-2.md')).toBe('second');
    await writeFile(path.join(folder, 'README.md'), 'first');
    expect(path.basename((await writeReport(REPORT, folder)).originalCard!)).toBe('README.original.md');
    expect(await readdir(folder)).toHaveLength(5);
  });

  it('writes nothing of a document that is none, and leaves no halves behind', async () => {
    const broken = { ...REPORT, similarity: [[1]] };
    await expect(writeReport(broken, folder)).rejects.toMatchObject({ code: 'REPORT_INVALID' });
    expect(await readdir(folder)).toEqual([]);
    await expect(writeReport(REPORT, path.join(folder, 'none'))).rejects.toMatchObject({
      code: 'WRITE_FAILED',
    });
    await mkdir(path.join(folder, 'cqil.report.html'));
    await expect(writeReport(REPORT, folder)).rejects.toMatchObject({ code: 'WRITE_FAILED' });
    expect((await readdir(folder)).filter((name) => name.endsWith('.tmp'))).toEqual([]);
  });
});

describe('reading a report', () => {
  const plan = (change: object) => ({ ...REPORT, plan: { ...REPORT.plan, ...change } });
  it.each([
    ['no JSON', '{', /JSON/],
    ['another version', JSON.stringify({ ...REPORT, version: 2 }), /version/],
    ['a missing field', JSON.stringify({ ...REPORT, machine: undefined }), /machine/],
    [
      'a similarity that is not square',
      JSON.stringify({ ...REPORT, similarity: [[1]] }),
      /similarity: is not 31 × 31/,
    ],
    ['no plan', JSON.stringify(plan({ groups: 'none' })), /plan: groups/],
    ['a plan for another model', JSON.stringify(plan({ layers: 29 })), /plan: layers/],
    [
      'a plan of the front that is none',
      JSON.stringify({ ...REPORT, front: [{ ...REPORT.front[3], plan: {} }] }),
      /front\[0\]\.plan/,
    ],
    [
      'a candidate beyond the model',
      JSON.stringify({ ...REPORT, candidates: [{ layers: [29, 30], bypass: 0, kl: 1, crossEntropy: 1 }] }),
      /candidates\[0\]/,
    ],
  ])('refuses %s', async (_name, content, message) => {
    const file = path.join(folder, 'bad.json');
    await writeFile(file, content);
    await expect(readReport(file)).rejects.toThrow(message);
    await expect(readReport(file)).rejects.toMatchObject({ name: 'UsageError', code: 'REPORT_INVALID' });
  });

  it('says when there is none', async () => {
    await expect(readReport(path.join(folder, 'none.json'))).rejects.toMatchObject({
      code: 'REPORT_NOT_FOUND',
    });
  });

  it('leaves strings alone, whatever they hold', async () => {
    const report = madeUpReport();
    report.samples = [{ prompt: '[ 1,\n 2 ]', original: '[\n  1\n]', planned: '\u2028 "{}" \\' }];
    const { json } = await writeReport(report, folder);
    expect((await readReport(json)).samples).toEqual(report.samples);
  });

  it('has a row of numbers a line', () => {
    const lines = formatReport(REPORT).split('\n');
    expect(lines).toContain(`    [${REPORT.similarity![2]!.join(', ')}],`);
    expect(lines.some((line) => line.trim() === '"layers": [12, 13],')).toBe(true);
  });
});
