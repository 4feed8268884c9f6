import { realpath, stat } from 'node:fs/promises';
import path from 'node:path';
import { FileRange, type Model } from '../../onnx/index.js';
import { isAligned, referring } from '../../variant/by-reference.js';

/** Smaller tensors stay in the parts: shapes and constants that ONNX Runtime folds need to be there. */
const INLINE_BELOW = 4096;

/** Files that parts refer to. */
export interface ReferredFiles {
  /** What places are relative to, absolute: the innermost folder that holds all of them. */
  readonly folder: string;
  /** Relative to `folder`, with forward slashes. */
  readonly files: readonly { readonly path: string; readonly bytes: number }[];
}

/** Replaces weights by their places in the files that hold them; what ONNX Runtime could not map stays in the part. */
export class WeightReferences {
  readonly #folder: string;
  /** Absolute real path by the path that a tensor names. */
  readonly #real: ReadonlyMap<string, string>;
  readonly #used = new Set<string>();

  private constructor(folder: string, real: ReadonlyMap<string, string>) {
    this.#folder = folder;
    this.#real = real;
  }

  /** @param model whose tensors the parts share */
  static async of(model: Model): Promise<WeightReferences> {
    const real = new Map<string, string>();
    for (const { data } of model.graph.initializers.values()) {
      if (data instanceof FileRange && !real.has(data.file)) real.set(data.file, await realpath(data.file));
    }
    const folders = [...real.values()].map((file) => path.dirname(file));
    if (folders.length === 0) folders.push(path.dirname(await realpath(model.file ?? '.')));
    return new WeightReferences(folders.reduce(commonFolder), real);
  }

  /** A copy of a part whose weights are named by place. */
  apply(part: Model): Model {
    const copy = part.clone();
    for (const [name, tensor] of part.graph.initializers) {
      const { data } = tensor;
      if (!(data instanceof FileRange) || data.byteLength < INLINE_BELOW) continue;
      const file = this.#real.get(data.file);
      if (file === undefined || !isAligned(tensor, data.offset)) continue;
      this.#used.add(file);
      copy.graph.initializers.set(name, referring(tensor, data, { file, offset: data.offset }, this.#folder));
    }
    return copy;
  }

  /** Those that `apply` has referred to so far. */
  async used(): Promise<ReferredFiles> {
    const files = await Promise.all(
      [...this.#used].sort().map(async (file) => ({
        path: path.relative(this.#folder, file).split(path.sep).join('/'),
        bytes: (await stat(file)).size,
      })),
    );
    return { folder: this.#folder, files };
  }
}

function commonFolder(a: string, b: string): string {
  let common = a;
  while (path.relative(common, b).startsWith('..')) common = path.dirname(common);
  return common;
}
