import type { Plan } from '@cqil/core';
import { z } from 'zod';

/** What the report shows, and all that it shows: the HTML page and the model card are made from this alone. */
export type OptimizeReport = z.infer<typeof optimizeReportSchema>;
export type EvaluationRow = z.infer<typeof evaluationRowSchema>;
export type KindResult = z.infer<typeof kindResultSchema>;

const bypassSchema = z.union([z.int().min(0), z.literal('full')]);
const intervalSchema = z.object({ low: z.number(), high: z.number() });

const textSchema = z.object({
  kind: z.string(),
  spec: z.string(),
  sha256: z.string(),
  tokens: z.int().min(0),
});

const candidateSchema = z.object({
  layers: z.array(z.int().min(0)).min(2),
  bypass: bypassSchema,
  /** Nats a token, on development text. */
  kl: z.number(),
  crossEntropy: z.number(),
});

/** One kind of text, one model. */
export const kindResultSchema = z.object({
  kind: z.string(),
  tokens: z.int().min(0),
  perplexity: z.number(),
  interval: intervalSchema.optional(),
  /** Perplexity over the original's, minus 1; 0 for the original. */
  excess: z.number(),
  excessInterval: intervalSchema.optional(),
  /** KL(original ‖ this), nats a token. */
  kl: z.number(),
  klInterval: intervalSchema.optional(),
  /** Share of positions with the original's best token. */
  top1: z.number(),
  /** Reported beside the others and no part of the row's mean. */
  beside: z.boolean().optional(),
});

/** One model of the table: the original, ours, or a baseline. */
export const evaluationRowSchema = z.object({
  /** Stable, for programs: `original`, `ours`, `ours-recovered`, `skip-alternate`, ... */
  id: z.string(),
  /** For people: "Every other layer skipped". */
  name: z.string(),
  steps: z.int().min(1),
  recovered: z.boolean(),
  kinds: z.array(kindResultSchema),
  /** exp of the mean log perplexity ratio over the kinds, minus 1; over those that are not `beside`. */
  excess: z.number(),
  /** Tokens of greedy generation that equal the original's before the first that differs: mean over prompts. */
  generation: z.object({ prompts: z.int(), length: z.int(), agreed: z.number() }).optional(),
  /** Right answers of the built-in items by kind. */
  items: z.array(z.object({ kind: z.string(), right: z.int(), total: z.int() })).optional(),
  /** Why there is no recovered form of this row, where one was asked for. */
  note: z.string().optional(),
});

export const optimizeReportSchema = z.object({
  version: z.literal(1),
  /** ISO 8601. */
  created: z.string(),
  tool: z.object({ name: z.string(), version: z.string() }),
  /** What else the numbers depend on: the runtime, Node.js. */
  versions: z.array(z.object({ name: z.string(), version: z.string() })).optional(),
  /** The command that makes the model again. */
  command: z.string(),
  machine: z.string(),
  /** Seconds by step of the work, in order. */
  timings: z.array(z.object({ step: z.string(), seconds: z.number() })),
  model: z.object({
    name: z.string(),
    graph: z.string(),
    dtype: z.string(),
    sha256: z.string(),
    layers: z.int().min(1),
    hidden: z.int().min(1),
    /** On a hub, `owner/name`, where the model came from one. */
    repository: z.string().optional(),
    /** As the source's card says it: `apache-2.0`. */
    license: z.string().optional(),
  }),
  /** The graph that was written, where one was. */
  result: z.object({ graph: z.string(), sha256: z.string() }).optional(),
  texts: z.object({
    calibration: z.array(textSchema),
    development: z.array(textSchema),
    evaluation: z.array(textSchema),
  }),
  plan: z.custom<Plan>((value) => typeof value === 'object' && value !== null),
  target: z.string(),
  /** Cosine of all pairs of layer inputs, `[layers + 1, layers + 1]`. */
  similarity: z.array(z.array(z.number())).optional(),
  candidates: z.array(candidateSchema),
  /** The best plan found for each number of steps, jointly measured on development text; not recovered. */
  front: z.array(
    z.object({
      steps: z.int().min(1),
      plan: z.custom<Plan>((value) => typeof value === 'object' && value !== null),
      kl: z.number(),
      /** Perplexity ratio over the kinds (geometric mean), minus 1. */
      excess: z.number(),
    }),
  ),
  /** What recovery did, in the order of the stream. */
  recovery: z.array(
    z.object({
      layers: z.array(z.int().min(0)).min(1),
      /** Which matrices: `down`, `o`, `qkv`, `gate-up`. */
      matrix: z.string(),
      lambda: z.number().optional(),
      /** Held-out squared error of the refit's target over its variance, before and after. */
      before: z.number(),
      after: z.number(),
      kept: z.boolean(),
      /** Why it was not kept, where it was not. */
      reason: z.string().optional(),
    }),
  ),
  evaluation: z.object({ kinds: z.array(z.string()), rows: z.array(evaluationRowSchema) }),
  samples: z.array(z.object({ prompt: z.string(), original: z.string(), planned: z.string() })),
  /** What the user should know, a sentence each. */
  notes: z.array(z.string()),
});
