import { basename, dirname, join } from 'node:path';
import { ModelFormatError } from '@cqil/core';
import type { Metadata } from './metadata.js';
import { type GgufPart, type GgufTensor, readPart } from './reader.js';

/** A model in one GGUF file or in several. */
export interface GgufModel {
  /** All files, the first one first. */
  readonly files: readonly string[];
  /** The key-value pairs of the first file. */
  readonly metadata: Metadata;
  readonly tensors: ReadonlyMap<string, GgufTensor>;
}

const SPLIT_NAME = /^(.*)-(\d{5})-of-(\d{5})\.gguf$/;
const MAX_PARTS = 1000;

/**
 * Opens a GGUF model: reads metadata and tensor tables, no tensor. Of a split model any file may be given;
 * the others are found beside it by their names (`…-00001-of-0000N.gguf`).
 *
 * @throws ModelFormatError `GGUF_…` for damaged files, `GGUF_SPLIT` for parts that do not belong together.
 */
export async function readGguf(file: string): Promise<GgufModel> {
  const given = await readPart(file);
  const count = given.metadata.integer('split.count', 0, MAX_PARTS) ?? 0;
  if (count <= 1) return assemble([given]);
  const files = partNames(file, count);
  const parts: GgufPart[] = [];
  for (const [index, name] of files.entries()) {
    const part = name === file ? given : await readPart(name);
    checkPart(part, index, count);
    parts.push(part);
  }
  return assemble(parts);
}

function partNames(file: string, count: number): string[] {
  const match = SPLIT_NAME.exec(basename(file));
  if (match === null || Number(match[3]) !== count) {
    throw new ModelFormatError(
      'GGUF_SPLIT',
      `${file} is one of ${count} parts, but its name does not say so.`,
      {
        expected: `a name that ends in -00001-of-${String(count).padStart(5, '0')}.gguf`,
        found: basename(file),
        hint: 'Give the parts the names back that they were published under.',
      },
    );
  }
  const [, stem, own, total] = match;
  return Array.from({ length: count }, (_, i) => {
    const number = String(i + 1).padStart(5, '0');
    // The path as it was given, so that it is recognised and not read twice.
    return number === own ? file : join(dirname(file), `${stem}-${number}-of-${total}.gguf`);
  });
}

function checkPart(part: GgufPart, index: number, count: number): void {
  const { metadata } = part;
  const number = metadata.integer('split.no', 0, MAX_PARTS);
  const total = metadata.integer('split.count', 0, MAX_PARTS);
  if (number === index && total === count) return;
  throw new ModelFormatError('GGUF_SPLIT', `${part.file} does not belong where its name puts it.`, {
    expected: `split.no ${index} of split.count ${count}`,
    found: `split.no ${number ?? 'missing'} of split.count ${total ?? 'missing'}`,
    hint: 'Fetch all parts of the model again, from one place.',
  });
}

function assemble(parts: readonly GgufPart[]): GgufModel {
  const tensors = new Map<string, GgufTensor>();
  for (const part of parts) {
    for (const tensor of part.tensors) {
      if (tensors.has(tensor.name)) {
        throw new ModelFormatError('GGUF_DUPLICATE', `Two parts hold the tensor "${tensor.name}".`, {
          expected: 'every name once',
          hint: 'Fetch all parts of the model again, from one place.',
        });
      }
      tensors.set(tensor.name, tensor);
    }
  }
  const metadata = parts[0]!.metadata;
  const expected = metadata.integer('split.tensors.count', 0, Number.MAX_SAFE_INTEGER);
  if (expected !== undefined && parts.length > 1 && expected !== tensors.size) {
    throw new ModelFormatError('GGUF_SPLIT', 'The parts do not hold all tensors of the model.', {
      expected: `${expected} tensors`,
      found: `${tensors.size} tensors in ${parts.length} files`,
      hint: 'Fetch all parts of the model again, from one place.',
    });
  }
  return { files: parts.map((part) => part.file), metadata, tensors };
}
