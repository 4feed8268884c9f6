import { refusal } from '../options.js';

/** A number with its unit, as people write targets. */
export function amount(
  option: string,
  value: unknown,
  form: RegExp,
  unit: number,
  example: string,
): number | undefined {
  if (value === undefined) return undefined;
  const digits = typeof value === 'string' ? form.exec(value.trim())?.[1] : undefined;
  if (digits !== undefined) return Number(digits) / unit;
  throw refusal('OPTION_INVALID', `--${option} is not a number it can use.`, {
    expected: `like ${example}`,
    found: JSON.stringify(value) ?? 'nothing',
    hint: `write it as --${option} ${example}`,
  });
}
