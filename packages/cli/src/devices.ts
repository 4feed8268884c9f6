import { manyTexts } from './options.js';

/** `cpu:0,cpu:1`, as one text or several; undefined where nothing was said. */
export function deviceList(option: string): (value: unknown) => string[] | undefined {
  const texts = manyTexts(option);
  return (value) =>
    texts(value)?.flatMap((text) =>
      text
        .split(',')
        .map((device) => device.trim())
        .filter((device) => device !== ''),
    );
}
