import { readFile } from 'node:fs/promises';
import { UsageError } from '@cqil/core';
import { z } from 'zod';
import { writeDocument } from '../write-whole.js';

const count = z.int().min(0);
const row = z.array(z.number());
const matrix = z.array(row);

const textSchema = z.strictObject({
  kind: z.enum(['file', 'package', 'self', 'ids']),
  spec: z.string(),
  /** Of the text in UTF-8; of the ids in decimal, one a line, where there was no text. */
  sha256: z.string(),
  characters: count.exactOptional(),
  package: z.strictObject({ name: z.string(), version: z.string() }).exactOptional(),
  /** Tokens of it that the model was run on. */
  tokens: count,
});

const probeSchema = z
  .strictObject({
    version: z.literal(1),
    model: z.strictObject({ graph: z.string(), dtype: z.string(), sha256: z.string() }),
    layers: z.int().min(1),
    hidden: z.int().min(1),
    text: z.array(textSchema),
    settings: z.strictObject({
      window: z.int().min(2),
      /** Tokens at the start of each window that were left out: their activations are of another scale. */
      skipFirst: count,
      ckaBatch: z.int().min(4),
    }),
    /** Tokens that counted. */
    tokens: count,
    /** All but `blockInfluence`: `[layers + 1, layers + 1]`, entry i the input of layer i, the last the output. */
    metrics: z.strictObject({
      cosine: matrix,
      angular: matrix,
      relativeL2: matrix,
      cka: matrix.nullable(),
      blockInfluence: row,
    }),
    blockDependency: z
      .strictObject({
        /** How many layers behind a left-out one were looked at. */
        span: z.int().min(1),
        tokens: count,
        /** Row i, column k: layer i + 1 + k's dependency on layer i. */
        distance: matrix,
      })
      .exactOptional(),
  })
  .check((context) => {
    const { layers, metrics } = context.value;
    for (const name of ['cosine', 'angular', 'relativeL2', 'cka'] as const) {
      const value = metrics[name];
      if (value === null || (value.length === layers + 1 && value.every((r) => r.length === layers + 1)))
        continue;
      context.issues.push({
        code: 'custom',
        input: value,
        path: ['metrics', name],
        message: `is not ${layers + 1} × ${layers + 1}`,
      });
    }
    if (metrics.blockInfluence.length !== layers) {
      context.issues.push({
        code: 'custom',
        input: metrics.blockInfluence,
        path: ['metrics', 'blockInfluence'],
        message: `has not ${layers} entries`,
      });
    }
  });

/** What a probe found: how alike the inputs of a model's layers are. */
export type ProbeResult = z.infer<typeof probeSchema>;

/** Digits that are kept: what lies beyond differs between machines and thread counts. */
const DIGITS = 7;

/** The document as text: keys in the order of the schema, a matrix row a line. Equal results give equal bytes. */
export function formatProbe(result: ProbeResult): string {
  const checked = probeSchema.parse(result);
  const json = JSON.stringify(checked, (_, value) => (typeof value === 'number' ? rounded(value) : value), 2);
  return `${json.replace(/\[\s+((?:-?[\d.e+-]+,\s+)*-?[\d.e+-]+)\s+\]/g, (_, numbers: string) => {
    return `[${numbers.replace(/\s+/g, ' ')}]`;
  })}\n`;
}

function rounded(value: number): number {
  return Number.isInteger(value) ? value : Number(value.toPrecision(DIGITS));
}

/** Writes a probe under a temporary name that becomes the final one when everything is there. */
export async function writeProbe(result: ProbeResult, file: string): Promise<void> {
  await writeDocument(file, formatProbe(result));
}

/** @throws UsageError `PROBE_NOT_FOUND`, `PROBE_INVALID` naming the field */
export async function readProbe(file: string): Promise<ProbeResult> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (cause) {
    throw new UsageError('PROBE_NOT_FOUND', `Could not read ${file}.`, {
      expected: 'a file that `cqil probe` wrote',
      found: (cause as Error).message,
      cause,
    });
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw invalid(file, (cause as Error).message, cause);
  }
  const parsed = probeSchema.safeParse(value);
  if (!parsed.success) throw invalid(file, z.prettifyError(parsed.error), parsed.error);
  return parsed.data;
}

function invalid(file: string, found: string, cause: unknown): UsageError {
  return new UsageError('PROBE_INVALID', `${file} is no probe of a model.`, {
    expected: 'the JSON document that `cqil probe` writes, version 1',
    found,
    hint: 'Run `cqil probe` again.',
    cause,
  });
}
