import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { EnvironmentError, UsageError } from '@cqil/core';
import type { OrtBackend, OrtTensorClass } from './ort.js';

/** One onnxruntime-node that a Transformers.js computes with. */
export interface Installation {
  /** Folder of the onnxruntime-node package. */
  readonly folder: string;
  /** What onnxruntime-node registers for every device that it knows. */
  readonly backend: OrtBackend;
  /** Of the onnxruntime-common that this onnxruntime-node uses: its sessions hand out instances of this class only. */
  readonly Tensor: OrtTensorClass;
  /** Folders of the Transformers.js packages that load it. */
  readonly transformers: readonly string[];
}

/**
 * The onnxruntime-node of every Transformers.js that this program may import. Each package may have a copy of its own of
 * the next one, so that every step is resolved from the package that takes it.
 *
 * Loads onnxruntime-node's native half (as Transformers.js does on import), with its telemetry turned off (likewise).
 *
 * @param from files or folders of programs that import Transformers.js
 * @throws EnvironmentError `TRANSFORMERS_NOT_FOUND`; UsageError `TRANSFORMERS_UNSUPPORTED` for one with another ONNX
 *   Runtime inside
 */
export function findInstallations(from: readonly string[]): Installation[] {
  const packages = new Set(from.flatMap((base) => resolved(base, '@huggingface/transformers')));
  if (packages.size === 0) {
    throw new EnvironmentError(
      'TRANSFORMERS_NOT_FOUND',
      'There is no Transformers.js to register a backend for.',
      {
        expected: '@huggingface/transformers in reach of the program',
        found: `nothing by that name from ${from.join(', ')}`,
        hint: 'npm install @huggingface/transformers, or name the program with the option `from`',
      },
    );
  }
  const users = new Map<string, string[]>();
  for (const file of packages) {
    for (const runtime of resolved(file, 'onnxruntime-node')) {
      // dist/transformers.node.cjs → the package
      users.set(runtime, [...(users.get(runtime) ?? []), dirname(dirname(file))]);
    }
  }
  process.env.ORT_DISABLE_TELEMETRY ??= '1';
  return [...users].map(([file, transformers]) => ({ ...load(file), transformers }));
}

/** @param base a file or folder; what cannot be resolved from there gives nothing */
function resolved(base: string, name: string): string[] {
  try {
    return [createRequire(base).resolve(name)];
  } catch {
    return [];
  }
}

function load(index: string): Omit<Installation, 'transformers'> {
  const folder = dirname(dirname(index));
  const require = createRequire(index);
  let backend: Partial<OrtBackend> | undefined;
  let Tensor: OrtTensorClass | undefined;
  let cause: unknown;
  try {
    // Not the package's index, which registers the backend: this works before and after that.
    backend = (require(join(dirname(index), 'backend.js')) as { onnxruntimeBackend?: Partial<OrtBackend> })
      .onnxruntimeBackend;
    Tensor = (require('onnxruntime-common') as { Tensor?: OrtTensorClass }).Tensor;
  } catch (error) {
    cause = error;
  }
  if (typeof backend?.createInferenceSessionHandler === 'function' && Tensor !== undefined) {
    return { folder, backend: backend as OrtBackend, Tensor };
  }
  throw new UsageError('TRANSFORMERS_UNSUPPORTED', `The backend of ${folder} cannot be reached.`, {
    expected: 'onnxruntime-node as Transformers.js 4 brings it',
    found: cause instanceof Error ? cause.message : 'another inner structure',
    hint: 'install the version of onnxruntime-node that @huggingface/transformers names',
    cause,
  });
}

/** Where a program may import Transformers.js from: this package, its main script, and the folder that it runs in. */
export function usualPlaces(): string[] {
  const main = process.argv[1];
  return [
    import.meta.url,
    ...(main === undefined ? [] : [pathToFileURL(main).href]),
    pathToFileURL(join(process.cwd(), 'program.js')).href,
  ];
}
