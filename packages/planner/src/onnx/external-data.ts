import { realpath, stat } from 'node:fs/promises';
import path from 'node:path';
import { ModelFormatError } from '@cqil/core';
import { rawByteLength } from './data-types.js';
import type { TensorProto } from './gen/onnx_pb.js';
import { FileRange } from './tensor-data.js';

/** `TensorProto.DataLocation.EXTERNAL` */
export const EXTERNAL = 1;

/**
 * Resolves the external data of one model's tensors, and never leaves the model's folder: a location must be
 * relative, without `..`, and the file it names must lie (links resolved) in the model's folder or in the folder
 * that holds the real model file. The second is what hub caches look like: links into a folder of blobs.
 */
export class ExternalDataResolver {
  readonly #modelFile: string;
  readonly #files = new Map<string, { file: string; size: number }>();
  #roots: readonly string[] | undefined;

  constructor(modelFile: string) {
    this.#modelFile = modelFile;
  }

  /**
   * @returns the bytes' place and the location as the model gives it
   * @throws ModelFormatError `EXTERNAL_DATA_UNSAFE`, `EXTERNAL_DATA_MISSING`, `EXTERNAL_DATA_RANGE`
   */
  async resolve(tensor: TensorProto): Promise<{ data: FileRange; location: string }> {
    const entries = new Map(tensor.externalData.map(({ key, value }) => [key, value]));
    const location = entries.get('location');
    if (location === undefined || location === '') {
      throw new ModelFormatError('EXTERNAL_DATA_UNSAFE', `Tensor "${tensor.name}" names no external file.`, {
        expected: 'a relative "location"',
        found: location === undefined ? 'none' : 'an empty one',
      });
    }
    const { file, size } = await this.#locate(location, tensor.name);
    const offset = wholeNumber(entries.get('offset') ?? '0', 'offset', tensor.name);
    const expected = rawByteLength(tensor.name, tensor.dataType, tensor.dims);
    const given = entries.get('length');
    const length =
      given === undefined ? (expected ?? size - offset) : wholeNumber(given, 'length', tensor.name);
    if (expected !== undefined && length !== expected) {
      throw new ModelFormatError('EXTERNAL_DATA_RANGE', `Tensor "${tensor.name}" has the wrong length.`, {
        expected: `${expected} bytes for its shape [${tensor.dims.join(', ')}]`,
        found: `${length} bytes`,
      });
    }
    if (offset > size || length > size - offset) {
      throw new ModelFormatError(
        'EXTERNAL_DATA_RANGE',
        `Tensor "${tensor.name}" lies behind the end of its file.`,
        {
          expected: `bytes within ${location} (${size} bytes)`,
          found: `${length} bytes from offset ${offset}`,
          hint: 'The data file is incomplete or belongs to another model; fetch both again.',
        },
      );
    }
    return { data: new FileRange(file, offset, length), location };
  }

  async #locate(location: string, tensor: string): Promise<{ file: string; size: number }> {
    const known = this.#files.get(location);
    if (known !== undefined) return known;
    assertSafeLocation(location, tensor);
    const named = path.join(path.dirname(this.#modelFile), location);
    let file: string;
    try {
      file = await realpath(named);
    } catch (cause) {
      throw new ModelFormatError(
        'EXTERNAL_DATA_MISSING',
        `The weights of tensor "${tensor}" are not there.`,
        {
          expected: `the file ${named}`,
          found: 'no such file',
          hint: 'Put the data file beside the model, under the name it was exported with.',
          cause,
        },
      );
    }
    this.#roots ??= await modelRoots(this.#modelFile);
    if (!this.#roots.some((root) => isInside(root, file))) {
      throw unsafe(tensor, location, `a link to ${file}`);
    }
    const info = await stat(file);
    if (!info.isFile()) throw unsafe(tensor, location, 'something that is not a file');
    const found = { file, size: info.size };
    this.#files.set(location, found);
    return found;
  }
}

/** The folders that a model's data may lie in: its own, and the one that its real file is in. */
async function modelRoots(modelFile: string): Promise<string[]> {
  return [await realpath(path.dirname(modelFile)), path.dirname(await realpath(modelFile))];
}

function isInside(root: string, file: string): boolean {
  const relative = path.relative(root, file);
  return (
    relative !== '' &&
    !relative.startsWith(`..${path.sep}`) &&
    relative !== '..' &&
    !path.isAbsolute(relative)
  );
}

/** @throws ModelFormatError `EXTERNAL_DATA_UNSAFE` */
export function assertSafeLocation(location: string, tensor: string): void {
  const parts = location.split(/[\\/]/);
  if (path.posix.isAbsolute(location) || path.win32.isAbsolute(location) || /^[a-z]:/i.test(location)) {
    throw unsafe(tensor, location, 'an absolute path');
  }
  if (parts.includes('..')) throw unsafe(tensor, location, 'a path with ".."');
  if (location.includes('\0')) throw unsafe(tensor, location, 'a path with a NUL byte');
}

function unsafe(tensor: string, location: string, found: string): ModelFormatError {
  return new ModelFormatError(
    'EXTERNAL_DATA_UNSAFE',
    `Tensor "${tensor}" wants its data from outside the model's folder.`,
    {
      expected: "a file in the model's own folder",
      found: `${found} (location ${JSON.stringify(location)})`,
      hint: 'Do not use this model unless you trust it; if you do, move the data file beside the model.',
    },
  );
}

function wholeNumber(text: string, what: string, tensor: string): number {
  const value = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(value)) {
    throw new ModelFormatError('EXTERNAL_DATA_RANGE', `Tensor "${tensor}" has a wrong external ${what}.`, {
      expected: 'a number of bytes, 0 or more',
      found: JSON.stringify(text),
      hint: 'The model is damaged; fetch or export it again.',
    });
  }
  return value;
}
