import { defineConfig, type Options } from 'tsup';

/** The one way every package of this repository is built: ESM, declarations, source maps. */
export function packageConfig(options: Options = {}) {
  return defineConfig({
    entry: ['src/index.ts'],
    format: ['esm'],
    target: 'node20',
    dts: true,
    sourcemap: true,
    clean: true,
    splitting: false,
    treeshake: true,
    ...options,
  });
}
