import { createHash } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { locateModel, type ModelSource } from '../../source/index.js';
import { type OptimizeOptions, type OptimizeReport, optimize } from '../index.js';
import { modelFolder, textFiles } from './fixtures.js';

/** A folder with a small model and texts, where runs of some seconds can be made. */
export class Bench {
  #runs = 0;

  private constructor(
    readonly folder: string,
    readonly source: ModelSource,
    readonly texts: readonly string[],
  ) {}

  static async open(fixture = 'optimum/llama'): Promise<Bench> {
    const folder = await mkdtemp(path.join(tmpdir(), 'optimize-test-'));
    const source = await locateModel(await modelFolder(fixture, path.join(folder, 'model')));
    return new Bench(folder, source, await textFiles(path.join(folder, 'texts')));
  }

  close(): Promise<void> {
    return rm(this.folder, { recursive: true });
  }

  /** A name that no run had before. */
  out(): string {
    this.#runs += 1;
    return path.join(this.folder, `out-${this.#runs}`);
  }

  options(more: Partial<OptimizeOptions> = {}): OptimizeOptions {
    return {
      target: { maxSteps: 4 },
      texts: this.texts,
      tokens: { calibration: 3072, development: 512, evaluation: 256 },
      costTokens: 128,
      searchTokens: 128,
      window: 32,
      samples: false,
      session: { threads: 1 },
      command: 'a test',
      ...more,
    };
  }

  async run(out: string, more: Partial<OptimizeOptions> = {}): Promise<OptimizeReport> {
    return (await optimize(this.source, out, this.options(more))).report;
  }

  /** What must be the same whenever the same is asked for: the report but for times, and all other files. */
  async result(out: string) {
    const text = await readFile(path.join(out, 'cqil.report.json'), 'utf8');
    const { created: _, timings, ...report } = JSON.parse(text) as OptimizeReport;
    return { report, timed: timings.map(({ step }) => step), files: await hashes(out) };
  }

  /** Of this bench's folder, runs' results and the work they left. */
  async left(): Promise<string[]> {
    return (await readdir(this.folder)).filter((name) => name.startsWith('out-'));
  }
}

async function hashes(root: string): Promise<Record<string, string>> {
  const found: [string, string][] = [];
  for (const file of await filesIn(root)) {
    // They tell times; the report that they are made from is compared by itself.
    if (file.startsWith('cqil.report.') || file === 'README.md') continue;
    const bytes = await readFile(path.join(root, file));
    found.push([file, createHash('sha256').update(bytes).digest('hex')]);
  }
  return Object.fromEntries(found);
}

/** All files below a folder, by their paths in it, sorted. */
export async function filesIn(root: string): Promise<string[]> {
  const entries = await readdir(root, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => path.relative(root, path.join(entry.parentPath, entry.name)))
    .sort();
}
