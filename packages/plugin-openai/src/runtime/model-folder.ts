import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ModelFormatError, UsageError } from '@cqil/core';
import { isPartition } from '@cqil/runtime-gpu';
import { z } from 'zod';

/** Tokens, as configs have them: none, one or several. */
export const idsSchema = z.union([z.number().int(), z.array(z.number().int())]).nullish();
/** What is read of a config.json. */
export const configSchema = z.looseObject({
  vocab_size: z.number().int().positive().nullish(),
  max_position_embeddings: z.number().int().positive().nullish(),
  n_positions: z.number().int().positive().nullish(),
  eos_token_id: idsSchema,
});

/** The most tokens that the model was made for; `undefined` where its config does not say. */
export function contextLengthOf(config: z.infer<typeof configSchema>): number | undefined {
  return config.max_position_embeddings ?? config.n_positions ?? undefined;
}

/** What is opened as a decoder: a partition's folder as a whole, unless a graph is named. */
export async function graphOf(root: string, named: string | undefined): Promise<string> {
  if (named === undefined && (await isPartition(root))) return root;
  return join(root, named ?? (await onlyGraph(root)));
}

/** The parsed file, or what stands for it where it is missing. */
export async function read<T>(root: string, name: string, schema: z.ZodType<T>, missing?: T): Promise<T> {
  const text = await readText(root, name);
  if (text === undefined) {
    if (missing !== undefined) return missing;
    throw notFound(join(root, name));
  }
  try {
    return schema.parse(JSON.parse(text));
  } catch (cause) {
    throw new ModelFormatError('MODEL_CONFIG_INVALID', `${join(root, name)} is not what it should be.`, {
      found: cause instanceof Error ? cause.message : String(cause),
      hint: 'fetch the file again, or repair it',
      cause,
    });
  }
}

/** The text of a file; `undefined` where there is none. */
export async function readText(root: string, name: string): Promise<string | undefined> {
  try {
    return await readFile(join(root, name), 'utf8');
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw cause;
  }
}

/** Models that were rewritten or imported hold one graph; its name tells its dtype. */
async function onlyGraph(root: string): Promise<string> {
  const names = async (folder: string) =>
    (await readdir(join(root, folder)).catch(() => []))
      .filter((name) => name.endsWith('.onnx'))
      .map((name) => join(folder, name));
  const graphs = [...(await names('onnx')), ...(await names('.'))];
  const [only] = graphs;
  const usual = join('onnx', 'model.onnx');
  if (graphs.includes(usual)) return usual;
  if (only !== undefined && graphs.length === 1) return only;
  throw new UsageError(
    'MODEL_NOT_FOUND',
    `${root} holds ${graphs.length === 0 ? 'no graph' : 'several graphs'}.`,
    {
      expected: `one .onnx file, or ${usual}`,
      found: graphs.join(', ') || 'none',
      hint: 'check the folder, or name the graph by the option `graph`',
    },
  );
}

export function notFound(file: string, cause?: unknown): UsageError {
  return new UsageError('MODEL_NOT_FOUND', `There is no ${file}.`, {
    expected: 'a model folder with a graph, config.json, tokenizer.json and tokenizer_config.json',
    found: 'no such file',
    hint: 'check the folder',
    ...(cause === undefined ? {} : { cause }),
  });
}
