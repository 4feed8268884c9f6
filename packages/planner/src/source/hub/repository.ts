import { CqilError, ModelFormatError, UsageError } from '@cqil/core';
import { HubApiError, listFiles, modelInfo } from '@huggingface/hub';
import { DTYPES, type DtypeChoice, defaultDtype, graphFileName } from '../dtype.js';
import { isWeights } from '../files.js';
import type { Digest } from './digest.js';
import { hubFetch, statusFailure, unreachable } from './request.js';
import type { HubSettings } from './settings.js';

/** One file of a repository at one commit. */
export interface RepositoryFile {
  readonly path: string;
  readonly size: number;
  readonly digest: Digest | undefined;
}

/** A repository's files at the commit that a revision stood for when it was asked. */
export interface Repository {
  readonly id: string;
  readonly commit: string;
  readonly files: readonly RepositoryFile[];
  /** The address of a file's bytes at that commit. */
  url(path: string): string;
}

/** @throws UsageError `FETCH_NOT_FOUND`; EnvironmentError `FETCH_NOT_ALLOWED`, `FETCH_REFUSED`, `FETCH_UNREACHABLE` */
export async function readRepository(
  id: string,
  revision: string,
  settings: HubSettings,
  signal?: AbortSignal,
): Promise<Repository> {
  const plain = hubFetch(settings);
  const request: typeof fetch = (input, init) =>
    plain(input, signal === undefined ? init : { ...init, signal });
  const hubUrl = settings.endpoint;
  const what = `model repository ${id} at revision ${revision}`;
  try {
    const { sha } = await modelInfo({
      name: id,
      revision,
      hubUrl,
      fetch: request,
      additionalFields: ['sha'],
    });
    const files: RepositoryFile[] = [];
    for await (const entry of listFiles({
      repo: id,
      revision: sha,
      recursive: true,
      hubUrl,
      fetch: request,
    })) {
      if (entry.type !== 'file') continue;
      files.push({
        path: safePath(entry.path),
        size: entry.lfs?.size ?? entry.size,
        digest: digestOf(entry),
      });
    }
    return {
      id,
      commit: sha,
      files,
      url: (path) =>
        `${hubUrl}/${id}/resolve/${encodeURIComponent(sha)}/${path.split('/').map(encodeURIComponent).join('/')}`,
    };
  } catch (error) {
    signal?.throwIfAborted();
    if (error instanceof CqilError) throw error;
    if (error instanceof HubApiError) throw statusFailure(error.statusCode, what);
    throw unreachable(hubUrl, error);
  }
}

function digestOf(entry: { oid?: string; lfs?: { oid: string } }): Digest | undefined {
  if (entry.lfs !== undefined)
    return { kind: 'sha256', hex: entry.lfs.oid.replace(/^sha256:/, '').toLowerCase() };
  return entry.oid === undefined ? undefined : { kind: 'git-blob', hex: entry.oid.toLowerCase() };
}

/** A repository is someone else's: its paths must not lead out of the folder they are written to. */
function safePath(path: string): string {
  const parts = path.split('/');
  if (
    path !== '' &&
    !/[\\\0:]/.test(path) &&
    parts.every((part) => part !== '' && part !== '.' && part !== '..')
  ) {
    return path;
  }
  throw new ModelFormatError('FETCH_PATH_UNSAFE', 'The repository holds a file with an unsafe name.', {
    expected: 'relative paths within the repository',
    found: JSON.stringify(path),
    hint: 'do not use this repository',
  });
}

/**
 * The files of one model: its chosen graph with its external data, configs, tokenizer and licence.
 *
 * @param config the repository's parsed `config.json`, which may name the default dtype
 * @throws ModelFormatError `MODEL_FOLDER_WITHOUT_MODEL`; UsageError `MODEL_DTYPE_MISSING`
 */
export function selectFiles(
  repository: Repository,
  config: unknown,
  choice?: DtypeChoice,
): readonly RepositoryFile[] {
  const { files, id } = repository;
  const side = files.filter(({ path }) => !path.includes('/') && isSideFile(path));
  if (files.some(({ path }) => path === 'genai_config.json')) {
    if (choice !== undefined && choice !== 'auto')
      throw missing(id, `a ${choice} graph`, 'one model.onnx for ONNX Runtime GenAI');
    return [...side, ...files.filter(({ path }) => /^[^/]+\.onnx([._]data(_\d+)?)?$/.test(path))];
  }
  const folder = files.some(({ path }) => /^onnx\/[^/]+\.onnx$/.test(path)) ? 'onnx/' : '';
  const named = DTYPES.filter((dtype) =>
    files.some(({ path }) => path === `${folder}${graphFileName(dtype)}`),
  );
  if (named.length === 0) throw withoutModel(repository);
  const wanted = defaultDtype(config, choice);
  const dtype = named.includes(wanted)
    ? wanted
    : choice === undefined && named.length === 1
      ? named[0]
      : undefined;
  if (dtype === undefined) throw missing(id, `a ${wanted} graph`, named.join(', '));
  const graph = `${folder}${graphFileName(dtype)}`;
  const weights = files.filter(
    ({ path }) =>
      path === graph || (path.startsWith(graph) && /^[._]data(_\d+)?$/.test(path.slice(graph.length))),
  );
  return [...side, ...weights];
}

function isSideFile(name: string): boolean {
  return (
    !name.startsWith('.') &&
    !isWeights(name) &&
    !/\.(png|jpe?g|gif|webp|svg|mp4|webm|mp3|wav|pdf|zip|bin)$/i.test(name)
  );
}

function missing(id: string, wanted: string, found: string): UsageError {
  return new UsageError('MODEL_DTYPE_MISSING', `${id} has not the graph asked for.`, {
    expected: wanted,
    found,
    hint: 'choose one of these with --dtype',
  });
}

function withoutModel({ id, files }: Repository): ModelFormatError {
  const others = files.map(({ path }) => path).filter((path) => /\.(onnx|gguf|safetensors)$/.test(path));
  return new ModelFormatError('MODEL_FOLDER_WITHOUT_MODEL', `${id} holds no decoder graph in ONNX.`, {
    expected: 'onnx/model*.onnx, model*.onnx, or genai_config.json',
    found: others.slice(0, 12).join(', ') || 'no model file',
    hint: 'look for a repository with ONNX files; a GGUF file becomes a model folder with `cqil import`',
  });
}
