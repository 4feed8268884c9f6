import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** What `npm run setup:model` makes of SmolLM2-135M-Instruct. */
const PLACES = {
  /** The GGUF file itself, Q4_1. */
  gguf: 'models/smollm2-135m-instruct.gguf',
  /** Imported with `--dtype fp32`. */
  fp32: 'models/smollm2-135m-instruct',
  /** Imported with `--dtype source`: the 4-bit weights as they are. */
  q4: 'models/smollm2-135m-instruct-q4',
} as const;

/**
 * The path of the real model that tests named `*.model.test.ts` use, in `.cache` or where `CQIL_CACHE` says.
 *
 * @throws Error when it is not set up
 */
export function testModel(which: keyof typeof PLACES): string {
  const path = resolve(root, process.env.CQIL_CACHE || '.cache', PLACES[which]);
  if (existsSync(path)) return path;
  throw new Error(`The test model is not set up: there is no ${path}. Run "npm run setup:model" once.`);
}
