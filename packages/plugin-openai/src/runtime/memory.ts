import { createReadStream } from 'node:fs';
import { readdir, readFile, stat } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { PARTITION_FILE, readManifest } from '@cqil/runtime-gpu';

/** Memory that a model takes once it is open, without its caches; what it takes on disk says most of it. */
export interface ModelFiles {
  /** The graph's own file, or a partition's graphs together. */
  readonly graph: number;
  /** Weights in files of their own. */
  readonly data: number;
  readonly tokenizer: number;
}

/** A graph's own weights are there twice: as they were read, and as the kernels want them. */
const GRAPH = 2;
/** A tokenizer's tables against its file. */
const TOKENIZER = 16;

/** About the bytes that a model of these files takes, without its caches; see the test for how well. */
export function weightBytes({ graph, data, tokenizer }: ModelFiles): number {
  return GRAPH * graph + data + TOKENIZER * tokenizer;
}

/**
 * The sizes of a model's files, in bytes; what is missing is 0.
 *
 * @param folder the model's folder, with its `tokenizer.json`
 * @param graph an `.onnx` file, or the folder of a partition's graphs
 */
export async function modelFiles(folder: string, graph: string): Promise<ModelFiles> {
  const whole = graph.endsWith('.onnx');
  const graphs = whole ? [graph] : (await namesIn(graph)).filter((name) => name.endsWith('.onnx'));
  const data = new Set<string>();
  for (const file of graphs)
    for (const place of await placesIn(file)) data.add(resolve(dirname(file), place));
  return {
    graph: await sumOf(graphs),
    data: whole ? await sumOf(data) : await partitionedData(graph),
    tokenizer: await sizeOf(join(folder, 'tokenizer.json')),
  };
}

/** Bytes of keys and values that a token takes in float32; 0 where the config does not say. */
export function cacheBytesPerToken(config: Readonly<Record<string, unknown>>): number {
  const number = (...names: string[]) => {
    for (const name of names) if (typeof config[name] === 'number') return config[name];
    return undefined;
  };
  const layers = number('num_hidden_layers', 'n_layer', 'num_layers') ?? 0;
  const heads = number('num_attention_heads', 'n_head', 'num_heads') ?? 0;
  const size = number('head_dim') ?? (number('hidden_size', 'n_embd', 'd_model') ?? 0) / Math.max(heads, 1);
  return layers * (number('num_key_value_heads') ?? heads) * size * 2 * Float32Array.BYTES_PER_ELEMENT;
}

/** The parts of a partition name places in the model's files, whose sizes its manifest tells. */
async function partitionedData(folder: string): Promise<number> {
  const text = await readFile(join(folder, PARTITION_FILE), 'utf8').catch(() => 'null');
  const read = readManifest(JSON.parse(text));
  return 'wrong' in read ? 0 : read.manifest.weights.files.reduce((sum, { bytes }) => sum + bytes, 0);
}

/** `location` as the key of an entry of `external_data`, in protobuf; its value follows. */
const LOCATION = Buffer.from('\x0a\x08location\x12', 'latin1');
/** Longer names of files are taken for something else. */
const LONGEST = 127;

/** The files that a graph has its weights in, as it names them. Read in parts: a graph may be as large as its weights. */
async function placesIn(file: string): Promise<ReadonlySet<string>> {
  const places = new Set<string>();
  let before: Buffer = Buffer.alloc(0);
  for await (const chunk of createReadStream(file, { highWaterMark: 1 << 22 }) as AsyncIterable<Buffer>) {
    const bytes = Buffer.concat([before, chunk]);
    let at = bytes.indexOf(LOCATION);
    for (; at !== -1; at = bytes.indexOf(LOCATION, at + 1)) {
      const start = at + LOCATION.length + 1;
      const length = bytes[start - 1] ?? 0;
      if (length === 0 || length > LONGEST) continue;
      if (start + length > bytes.length) break;
      places.add(bytes.toString('utf8', start, start + length));
    }
    before = bytes.subarray(Math.max(0, bytes.length - LOCATION.length - 1 - LONGEST));
  }
  return places;
}

async function namesIn(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true }).catch(() => []);
  return entries.map((name) => join(folder, name));
}

async function sumOf(files: Iterable<string>): Promise<number> {
  let sum = 0;
  for (const file of files) sum += await sizeOf(file);
  return sum;
}

async function sizeOf(file: string): Promise<number> {
  return stat(file).then(
    ({ size }) => size,
    () => 0,
  );
}
