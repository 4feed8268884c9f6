import { readdir, readFile } from 'node:fs/promises';
import { basename, dirname, extname, join, resolve } from 'node:path';
import { ModelFormatError, UsageError } from '@cqil/core';
import { PARTITION_FILE } from '@cqil/runtime-gpu';
import { z } from 'zod';
import {
  DTYPES,
  type DtypeChoice,
  defaultDtype,
  dtypeOfFileName,
  graphFileName,
  isNamedDtype,
  type NamedDtype,
} from './dtype.js';
import {
  firstBytes,
  isDanglingLink,
  kindOf,
  listSideFiles,
  posixRelative,
  readJsonIfThere,
} from './files.js';
import type { ModelSource } from './types.js';

export interface LocateOptions {
  /** Which graph of a folder with several; default: what Transformers.js would take in node. */
  readonly dtype?: string | undefined;
}

/**
 * Finds the graph to work on: in a Transformers.js or Optimum folder, in an ONNX Runtime GenAI folder, in a
 * snapshot of a hub cache (made of links), or at a file.
 *
 * In a folder with several graphs the choice is Transformers.js's own (see {@link defaultDtype}); where there
 * is exactly one and nothing was asked for, it is taken.
 *
 * @param path a folder or an `.onnx` file
 * @throws UsageError `MODEL_NOT_FOUND`, `MODEL_IS_PARTITION`, `MODEL_DTYPE_UNKNOWN`, `MODEL_DTYPE_MISSING`
 * @throws ModelFormatError `MODEL_FOLDER_WITHOUT_MODEL`, `MODEL_NOT_ONNX`, `MODEL_NOT_DECODER`,
 *   `MODEL_CONFIG_INVALID`, `MODEL_INCOMPLETE`
 * @example
 * const { onnxFile } = await locateModel('models/SmolLM2-135M-Instruct', { dtype: 'q4' });
 */
export async function locateModel(path: string, options: LocateOptions = {}): Promise<ModelSource> {
  const dtype = parseDtype(options.dtype);
  const absolute = resolve(path);
  const kind = await kindOf(absolute);
  if (kind === 'file') return locateFile(absolute, dtype);
  if (kind === 'folder') return locateFolder(await snapshotOf(absolute), dtype);
  if (await isDanglingLink(absolute)) throw danglingLink(absolute);
  throw new UsageError('MODEL_NOT_FOUND', `There is no model at ${path}.`, {
    expected: 'a model folder or an .onnx file',
    found: 'no such file or folder',
    hint: 'check the path; `cqil fetch` brings a model from a hub, `cqil import` makes one from a GGUF file',
  });
}

function parseDtype(dtype: string | undefined): DtypeChoice | undefined {
  if (dtype === undefined || dtype === 'auto' || isNamedDtype(dtype)) return dtype;
  throw new UsageError('MODEL_DTYPE_UNKNOWN', `There is no dtype ${JSON.stringify(dtype)}.`, {
    expected: `one of auto, ${DTYPES.join(', ')}`,
    found: dtype,
    hint: 'name a dtype of that list, or leave the option out',
  });
}

async function locateFolder(root: string, choice: DtypeChoice | undefined): Promise<ModelSource> {
  if ((await kindOf(join(root, PARTITION_FILE))) === 'file') throw partitioned(root);
  const genai = await genaiGraph(root);
  if (genai !== undefined) return single(root, genai, 'genai', choice);

  const config = await readJsonIfThere(join(root, 'config.json'));
  refuseOtherKinds(root, config);
  const folder = (await kindOf(join(root, 'onnx'))) === 'folder' ? join(root, 'onnx') : root;
  let graphs = await graphsIn(folder);
  if (graphs.length === 0 && folder !== root) graphs = await graphsIn(root);
  if (graphs.length === 0) throw noGraph(root);

  const named = DTYPES.filter((dtype) => graphs.some((file) => basename(file) === graphFileName(dtype)));
  if (named.length === 0) {
    refuseOtherGraphs(root, graphs);
    const [only] = graphs;
    if (graphs.length > 1 || only === undefined) throw noNamedGraph(root, graphs);
    return single(root, only, 'file', choice);
  }
  let dtype = defaultDtype(config, choice);
  const [first] = named;
  if (!named.includes(dtype)) {
    if (choice !== undefined || named.length > 1 || first === undefined) {
      throw missingDtype(root, dtype, named, choice === undefined);
    }
    dtype = first;
  }
  const onnxFile = graphs.find((file) => basename(file) === graphFileName(dtype)) as string;
  await refuseNonOnnx(onnxFile);
  return {
    root,
    onnxFile,
    onnxRelative: posixRelative(root, onnxFile),
    dtype,
    layout: 'transformers',
    available: named,
    sideFiles: await listSideFiles(root),
  };
}

async function locateFile(file: string, choice: DtypeChoice | undefined): Promise<ModelSource> {
  await refuseNonOnnx(file);
  const own = dirname(file);
  const dtype = dtypeOfFileName(basename(file));
  for (const root of basename(own) === 'onnx' ? [dirname(own), own] : [own]) {
    if ((await genaiGraph(root)) === file) return single(root, file, 'genai', choice);
    const config = await readJsonIfThere(join(root, 'config.json'));
    if (config === undefined) continue;
    if (dtype === undefined) return single(root, file, 'file', choice);
    if (choice !== undefined && choice !== 'auto' && choice !== dtype)
      throw fileOfOtherDtype(file, choice, dtype);
    return {
      root,
      onnxFile: file,
      onnxRelative: posixRelative(root, file),
      dtype,
      layout: 'transformers',
      available: [dtype],
      sideFiles: await listSideFiles(root),
    };
  }
  if (choice !== undefined && choice !== 'auto') throw fileOfOtherDtype(file, choice, dtype);
  return {
    root: own,
    onnxFile: file,
    onnxRelative: basename(file),
    dtype: 'as-is',
    layout: 'file',
    available: [],
    // A lone graph may lie in a folder of anything: none of its neighbours is known to belong to it.
    sideFiles: [],
  };
}

async function single(
  root: string,
  onnxFile: string,
  layout: 'genai' | 'file',
  choice: DtypeChoice | undefined,
): Promise<ModelSource> {
  if (choice !== undefined && choice !== 'auto') throw fileOfOtherDtype(onnxFile, choice, undefined);
  await refuseNonOnnx(onnxFile);
  return {
    root,
    onnxFile,
    onnxRelative: posixRelative(root, onnxFile),
    dtype: 'as-is',
    layout,
    available: [],
    sideFiles: await listSideFiles(root),
  };
}

/** The snapshot that `refs/main` (or the only one) names, when `folder` is a model's folder of a hub cache. */
async function snapshotOf(folder: string): Promise<string> {
  const snapshots = join(folder, 'snapshots');
  if ((await kindOf(snapshots)) !== 'folder' || (await kindOf(join(folder, 'config.json'))) !== undefined)
    return folder;
  const main = join(folder, 'refs', 'main');
  const revisions = await readdir(snapshots);
  const named = (await kindOf(main)) === 'file' ? (await readFile(main, 'utf8')).trim() : undefined;
  const revision =
    revisions.find((name) => name === named) ?? (revisions.length === 1 ? revisions[0] : undefined);
  return revision === undefined ? folder : join(snapshots, revision);
}

const genaiConfig = z.looseObject({
  model: z.looseObject({ decoder: z.looseObject({ filename: z.string().min(1) }) }),
});

async function genaiGraph(root: string): Promise<string | undefined> {
  const file = join(root, 'genai_config.json');
  const config = await readJsonIfThere(file);
  if (config === undefined) return undefined;
  const parsed = genaiConfig.safeParse(config);
  if (!parsed.success) {
    throw new ModelFormatError('MODEL_NOT_DECODER', `${file} names no decoder graph.`, {
      expected: 'model.decoder.filename, as ONNX Runtime GenAI writes it for a decoder-only model',
      found: 'no such key',
      hint: 'only decoder language models can be planned',
    });
  }
  const { filename } = parsed.data.model.decoder;
  if (basename(filename) !== filename) {
    throw new ModelFormatError('MODEL_CONFIG_INVALID', `${file} names a graph outside its folder.`, {
      expected: 'model.decoder.filename to be a file name',
      found: filename,
      hint: 'use a model folder as the GenAI builder writes it',
    });
  }
  const graph = join(root, filename);
  if ((await kindOf(graph)) === 'file') return graph;
  if (await isDanglingLink(graph)) throw danglingLink(graph);
  throw new ModelFormatError('MODEL_FOLDER_WITHOUT_MODEL', `${file} names a graph that is not there.`, {
    expected: filename,
    found: (await graphsIn(root)).map((path) => basename(path)).join(', ') || 'no .onnx file',
    hint: 'fetch the missing file',
  });
}

async function graphsIn(folder: string): Promise<string[]> {
  const graphs: string[] = [];
  for (const name of (await readdir(folder)).sort()) {
    if (extname(name).toLowerCase() !== '.onnx') continue;
    const path = join(folder, name);
    if ((await kindOf(path)) === 'file') graphs.push(path);
    else if (await isDanglingLink(path)) throw danglingLink(path);
  }
  return graphs;
}

const modelConfig = z.looseObject({
  is_encoder_decoder: z.boolean().nullish(),
  model_type: z.string().nullish(),
});

function refuseOtherKinds(root: string, config: unknown): void {
  const parsed = modelConfig.safeParse(config);
  if (parsed.success && parsed.data.is_encoder_decoder === true) {
    throw new ModelFormatError('MODEL_NOT_DECODER', `The model in ${root} is an encoder and a decoder.`, {
      expected: 'a decoder-only language model',
      found: `is_encoder_decoder: true, model_type: ${parsed.data.model_type ?? 'not given'}`,
      hint: 'only decoder-only language models can be planned',
    });
  }
}

function refuseOtherGraphs(root: string, graphs: readonly string[]): void {
  const names = graphs.map((file) => basename(file));
  if (!names.some((name) => /encoder|vision|vae|unet|image|audio|embed_tokens/i.test(name))) return;
  throw new ModelFormatError('MODEL_NOT_DECODER', `The model in ${root} is made of several graphs.`, {
    expected: 'one decoder graph, model.onnx or model_<dtype>.onnx',
    found: names.join(', '),
    hint: 'only decoder-only language models can be planned',
  });
}

const FOREIGN: readonly (readonly [
  test: (head: Uint8Array, text: string) => boolean,
  kind: string,
  hint: string,
])[] = [
  [(_, text) => text.startsWith('GGUF'), 'a GGUF file', 'turn it into a model folder with `cqil import`'],
  [
    (_, text) => text.startsWith('version https://git-lfs'),
    'a Git LFS pointer, not the file itself',
    'fetch the real file with `git lfs pull` or `cqil fetch`',
  ],
  [(head) => head.length === 0, 'an empty file', 'fetch or export the model again'],
  [
    (_, text) => text.startsWith('PK\u0003\u0004'),
    'a zip archive (a PyTorch checkpoint?)',
    'export the model to ONNX',
  ],
  [(_, text) => /^\s*[{[<]/.test(text), 'a text file', 'give the .onnx file or the model folder'],
  [(_, text) => text.slice(8, 10) === '{"', 'a safetensors file', 'export the model to ONNX'],
  // A ModelProto starts with the tag of one of its fields 1–8, 14, 20, 25, 26; the wire types are 0 and 2.
  [(head) => !isModelTag(head), 'bytes that start no ONNX model', 'fetch or export the model again'],
];

function isModelTag(head: Uint8Array): boolean {
  const [first = 0, second = 0] = head;
  const tag = first < 0x80 ? first : second < 0x80 ? (first & 0x7f) | (second << 7) : 0;
  // Unknown fields of later ONNX versions are let through: the reader knows better than this first look.
  return tag >> 3 >= 1 && tag >> 3 <= 31 && [0, 2].includes(tag & 7);
}

async function refuseNonOnnx(file: string): Promise<void> {
  const head = await firstBytes(file, 64);
  const text = Buffer.from(head).toString('latin1');
  const foreign = FOREIGN.find(([test]) => test(head, text));
  if (foreign === undefined) return;
  throw new ModelFormatError('MODEL_NOT_ONNX', `${file} is not an ONNX model.`, {
    expected: 'an ONNX file',
    found: foreign[1],
    hint: foreign[2],
  });
}

function partitioned(root: string): UsageError {
  return new UsageError('MODEL_IS_PARTITION', `${root} holds a model in parts, for several devices.`, {
    expected: 'a model as one graph',
    found: `a folder that \`cqil partition\` wrote (${PARTITION_FILE})`,
    hint: 'name the model that it was cut from; `cqil chat`, `cqil serve` and `cqil bench` run the parts',
  });
}

function noGraph(root: string): ModelFormatError {
  return new ModelFormatError('MODEL_FOLDER_WITHOUT_MODEL', `There is no ONNX model in ${root}.`, {
    expected: 'onnx/model*.onnx, model*.onnx, or genai_config.json with its graph',
    found: 'no .onnx file',
    hint: 'name the folder that holds config.json; a GGUF file becomes a model folder with `cqil import`',
  });
}

function noNamedGraph(root: string, graphs: readonly string[]): ModelFormatError {
  return new ModelFormatError('MODEL_FOLDER_WITHOUT_MODEL', `No graph in ${root} is called model*.onnx.`, {
    expected: 'model.onnx or model_<dtype>.onnx',
    found: graphs.map((file) => posixRelative(root, file)).join(', '),
    hint: 'name the .onnx file itself',
  });
}

function missingDtype(
  root: string,
  dtype: NamedDtype,
  available: readonly NamedDtype[],
  isDefault: boolean,
): UsageError {
  return new UsageError('MODEL_DTYPE_MISSING', `There is no ${dtype} graph in ${root}.`, {
    expected: `${graphFileName(dtype)}${isDefault ? ' (the default)' : ''}`,
    found: available.map((name) => `${name} (${graphFileName(name)})`).join(', '),
    hint: `choose one of these dtypes: ${available.join(', ')}`,
  });
}

function fileOfOtherDtype(file: string, choice: NamedDtype, found: NamedDtype | undefined): UsageError {
  return new UsageError(
    'MODEL_DTYPE_MISSING',
    `${file} is the only choice here, and it is not named ${choice}.`,
    {
      expected:
        found === undefined ? 'no dtype: the names of this model carry none' : `dtype ${found} or none`,
      found: choice,
      hint: 'leave the dtype out',
    },
  );
}

function danglingLink(path: string): ModelFormatError {
  return new ModelFormatError('MODEL_INCOMPLETE', `${path} is a link to a file that is gone.`, {
    expected: 'a link to an existing file',
    found: 'a dangling link, as an interrupted download leaves it',
    hint: 'fetch the model again',
  });
}
