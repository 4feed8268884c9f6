// Writes plan.schema.json from the zod schema in src/plan/schema.ts. A unit test fails where it is out of date.
import { renameSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = fileURLToPath(new URL('..', import.meta.url));
const { outputFiles } = await build({
  stdin: {
    contents: `export { planSchemaText } from './src/plan/schema-file.js';`,
    resolveDir: root,
    loader: 'ts',
  },
  bundle: true,
  format: 'esm',
  platform: 'neutral',
  write: false,
});
const code = Buffer.from(outputFiles[0].contents).toString('base64');
const { planSchemaText } = await import(`data:text/javascript;base64,${code}`);

const target = `${root}/plan.schema.json`;
writeFileSync(`${target}.tmp`, planSchemaText());
renameSync(`${target}.tmp`, target);
process.stderr.write('wrote plan.schema.json\n');
