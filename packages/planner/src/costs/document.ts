import { readFile } from 'node:fs/promises';
import { UsageError } from '@cqil/core';
import { z } from 'zod';
import { writeDocument } from '../write-whole.js';

const count = z.int().min(0);
const bypass = z.union([count, z.literal('full')]);
const share = z.number().min(0).max(1);

const means = {
  /** Predicted tokens. */
  tokens: count,
  /** Mean KL(original ‖ grouped) of the next-token distribution, nats a token. */
  kl: z.number(),
  /** Mean cross-entropy over that of the original, nats a token. */
  crossEntropy: z.number(),
  /** Share of tokens for which the original's best guess is the best here, too. */
  top1: share,
};

const candidateSchema = z.strictObject({
  layers: z.array(count).min(2),
  bypass,
  ...means,
  /** Dropped before all text was seen: all its numbers are those of the windows up to there. */
  coarse: z.boolean(),
  scores: z.strictObject({
    /** How far the final hidden state moves, mean over windows: see `hiddenChange`. */
    hidden: z.number(),
    /**
     * Block dependency inside the group (after FFN Fusion, arXiv 2503.18908): the mean over positions of 1 − cos
     * between what a member adds in the original and what it adds when it reads the group's input, without the
     * layers between; of the members behind the first the largest.
     */
    dependency: z.number(),
  }),
  /** By kind of text. */
  kinds: z.array(z.strictObject({ kind: z.string(), ...means })),
});

const costsSchema = z.strictObject({
  version: z.literal(1),
  model: z.strictObject({ graph: z.string(), dtype: z.string(), sha256: z.string() }),
  layers: z.int().min(1),
  hidden: z.int().min(1),
  text: z.array(
    z.strictObject({
      kind: z.string(),
      /** Of the token ids and how they are cut: see `hashWindows`. */
      sha256: z.string(),
      windows: count,
      /** Tokens that the model was run on. */
      tokens: count,
      sources: z.array(z.strictObject({ spec: z.string(), sha256: z.string() })),
    }),
  ),
  settings: z.strictObject({
    groupSizes: z.array(z.int().min(2)),
    /** `null`: all that differ in effect. */
    bypasses: z.array(bypass).nullable(),
    positions: z.int().min(1),
    skipFirst: count,
    /** `null`: every candidate was measured on all text. */
    halving: z.strictObject({ share, keep: share, by: z.enum(['kl', 'hidden', 'dependency']) }).nullable(),
  }),
  /** The original's mean cross-entropy, nats a token. */
  original: z.array(z.strictObject({ kind: z.string(), tokens: count, crossEntropy: z.number() })),
  /** By first layer, then size, then bypass. */
  candidates: z.array(candidateSchema),
});

/** What each group that a model could have does to it. */
export type CostsResult = z.infer<typeof costsSchema>;
/** A candidate as it was measured; all that `CandidateCost` of `@cqil/core` has, and more. */
export type MeasuredCandidate = z.infer<typeof candidateSchema>;

/** JSON with one candidate a line. */
export function formatCosts(result: CostsResult): string {
  const { candidates, ...rest } = costsSchema.parse(result);
  const head = JSON.stringify(rest, null, 2).slice(0, -2);
  const lines = candidates.map((candidate) => `    ${JSON.stringify(candidate)}`);
  return `${head},\n  "candidates": [${lines.length === 0 ? '' : `\n${lines.join(',\n')}\n  `}]\n}\n`;
}

/** Writes costs under a temporary name that becomes the final one when everything is there. */
export async function writeCosts(result: CostsResult, file: string): Promise<void> {
  await writeDocument(file, formatCosts(result));
}

/** @throws UsageError `COSTS_NOT_FOUND`, `COSTS_INVALID` naming the field */
export async function readCosts(file: string): Promise<CostsResult> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (cause) {
    throw new UsageError('COSTS_NOT_FOUND', `Could not read ${file}.`, {
      expected: 'a file with the measured costs of groups',
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
  const parsed = costsSchema.safeParse(value);
  if (!parsed.success) throw invalid(file, z.prettifyError(parsed.error), parsed.error);
  return parsed.data;
}

function invalid(file: string, found: string, cause: unknown): UsageError {
  return new UsageError('COSTS_INVALID', `${file} holds no costs of groups.`, {
    expected: 'the JSON document of measured costs, version 1',
    found,
    hint: 'Measure the costs again.',
    cause,
  });
}
