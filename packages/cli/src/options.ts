import { type CqilErrorDetails, UsageError } from '@cqil/core';
import type { Argv } from 'yargs';

let refused: UsageError | undefined;

/** yargs keeps only the message of what a coercion throws; parsing is synchronous, so the error can wait here. */
export function refusal(code: string, message: string, details: CqilErrorDetails): UsageError {
  refused = new UsageError(code, message, details);
  return refused;
}

/** What the option parsers below last threw, once. */
export function takeRefusal(): UsageError | undefined {
  const taken = refused;
  refused = undefined;
  return taken;
}

/** `value` as a whole number of at least `min`; yargs hands over NaN and arrays without a word. */
export function wholeNumber(option: string, min = 0): (value: unknown) => number | undefined {
  return (value) => {
    if (value === undefined) return undefined;
    const text = typeof value === 'string' || typeof value === 'number' ? String(value).trim() : '';
    const number = /^\d+$/.test(text) ? Number(text) : Number.NaN;
    if (Number.isSafeInteger(number) && number >= min) return number;
    throw refusal('OPTION_INVALID', `--${option} is not a number it can use.`, {
      expected: `a whole number of at least ${min}`,
      found: JSON.stringify(value) ?? 'nothing',
      hint: `write it as --${option} ${Math.max(min, 1)}`,
    });
  };
}

const BYTES: Readonly<Record<string, number>> = {
  b: 1,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
};

/** `value` as an amount of memory, in bytes: `4GiB`, `800 MB`, `1.5gib`. */
export function byteCount(option: string): (value: unknown) => number | undefined {
  return (value) => {
    if (value === undefined) return undefined;
    const [, amount, unit = 'b'] = /^(\d+(?:\.\d+)?)\s*([kmg]?i?b)?$/i.exec(String(value).trim()) ?? [];
    const bytes = Math.floor(Number(amount) * (BYTES[unit.toLowerCase()] ?? Number.NaN));
    if (Number.isSafeInteger(bytes) && bytes >= 1) return bytes;
    throw refusal('OPTION_INVALID', `--${option} is not an amount of memory.`, {
      expected: 'a number with a unit: KiB, MiB, GiB, kB, MB or GB',
      found: JSON.stringify(value) ?? 'nothing',
      hint: `write it as --${option} 4GiB`,
    });
  };
}

/** `value` as a number between `min` and `max`. */
export function fraction(option: string, min: number, max: number): (value: unknown) => number | undefined {
  return (value) => {
    if (value === undefined) return undefined;
    const number = typeof value === 'string' && value.trim() !== '' ? Number(value) : Number.NaN;
    if (number >= min && number <= max) return number;
    throw refusal('OPTION_INVALID', `--${option} is not a number it can use.`, {
      expected: `a number from ${min} to ${max}`,
      found: JSON.stringify(value) ?? 'nothing',
      hint: `write it as --${option} ${max}`,
    });
  };
}

/** `value` as one text: an option given twice, or given without a value, is refused. */
export function oneText(option: string): (value: unknown) => string {
  return (value) => {
    if (typeof value === 'string' && value !== '') return value;
    // yargs asks for a missing option itself.
    if (value === undefined) return value as unknown as string;
    throw refusal('OPTION_INVALID', `--${option} takes one value.`, {
      expected: `--${option} once, with a value`,
      found: Array.isArray(value) ? `${value.length} values` : 'no value',
      hint: 'leave one',
    });
  };
}

export function withModel<T>(yargs: Argv<T>) {
  return yargs.positional('model', {
    type: 'string',
    demandOption: true,
    describe: 'a model folder, or an .onnx file',
    coerce: oneText('model'),
  });
}

export function withDtype<T>(yargs: Argv<T>) {
  return yargs.option('dtype', {
    type: 'string',
    describe:
      'which graph of a folder with several: fp32, fp16, q8, q4, q4f16, …; default: as Transformers.js',
    coerce: oneText('dtype'),
  });
}

export function withOut<T>(yargs: Argv<T>, describe: string) {
  return yargs.option('out', { type: 'string', demandOption: true, describe, coerce: oneText('out') });
}

/** `value` as a list of texts: an option given without a value is refused. */
export function manyTexts(option: string): (value: unknown) => string[] | undefined {
  return (value) => {
    if (value === undefined) return undefined;
    const list = Array.isArray(value) ? value : [value];
    return list.length > 0 ? list.map(oneText(option)) : [oneText(option)('')];
  };
}

/** How wide layers are written. */
export function withWide<T>(yargs: Argv<T>) {
  return yargs
    .option('kv', {
      type: 'string',
      choices: ['layers', 'merged'] as const,
      describe:
        'caches of wide layers: a pair for each original layer, for loaders of the original (default), or merged to one',
    })
    .option('storage', {
      type: 'string',
      choices: ['auto', 'float', 'int4-blocks', 'int8-blocks'] as const,
      describe: "matrices of wide layers: as the original's (default), in floating point, or in blocks",
    });
}

/** What `withWide` was given, for the planner. */
export function wideOptions({
  kv,
  storage,
}: {
  readonly kv?: 'layers' | 'merged' | undefined;
  readonly storage?: 'auto' | 'float' | 'int4-blocks' | 'int8-blocks' | undefined;
}) {
  return { ...(kv === undefined ? {} : { kv }), ...(storage === undefined ? {} : { storage }) };
}

/** Text like that which a model is for, and text to judge by alone. */
export function withTexts<T>(yargs: Argv<T>) {
  return yargs
    .option('text', {
      type: 'string',
      array: true,
      describe:
        'text like that which the model is for: files, kind=file, or npm:<package>; default: the model writes some',
      coerce: manyTexts('text'),
    })
    .option('eval-text', {
      type: 'string',
      array: true,
      describe: 'text to judge by only; default: a fifth of --text',
      coerce: manyTexts('eval-text'),
    });
}
