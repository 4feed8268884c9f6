// @ts-check
/** `npm run setup:model`: the real model that the model tests and the demonstration use, in `.cache/models`. */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { build, cqil, install, models, root, say, script, step } from './steps.mjs';

const NAME = 'smollm2-135m-instruct';
export const gguf = join(models, `${NAME}.gguf`);

/** The folders that are made of the GGUF file: the exact one for tests, the quantised one for speed. */
export const imports = {
  fp32: join(models, NAME),
  source: join(models, `${NAME}-q4`),
};

/** @param {readonly ('fp32' | 'source')[]} dtypes */
export async function setupModel(dtypes) {
  mkdirSync(models, { recursive: true });
  if (existsSync(gguf)) say(`   ${gguf} is there`);
  else await cqil(['fetch', NAME, '--out', gguf]);
  for (const dtype of dtypes) {
    const folder = imports[dtype];
    const stamp = `${folder}.stamp`;
    const version = importerVersion();
    if (existsSync(folder) && existsSync(stamp) && readFileSync(stamp, 'utf8') === version) {
      say(`   ${folder} is there`);
      continue;
    }
    rmSync(folder, { recursive: true, force: true });
    await cqil(['import', gguf, '--out', folder, '--dtype', dtype]);
    writeFileSync(stamp, version);
  }
}

/** Changes whenever the code that writes imported models does. */
function importerVersion() {
  const hash = createHash('sha256');
  for (const folder of ['block-offsets', 'gguf', 'onnx']) {
    const path = join(root, 'packages/planner/src', folder);
    const names = readdirSync(path, { recursive: true, encoding: 'utf8' }).sort();
    for (const name of names) {
      if (name.endsWith('.ts') && !name.includes('.test.'))
        hash.update(name).update(readFileSync(join(path, name)));
    }
  }
  return hash.digest('hex');
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  await script(async () => {
    await step('Packages', install);
    await step('Build', build);
    await step('Model', () => setupModel(['fp32', 'source']));
  });
}
