import os from 'node:os';
import { type OnProgress, UsageError } from '@cqil/core';
import type { DecoderSession } from '../decoder/decoder.js';
import { openDecoder } from '../executor/open-decoder.js';
import { seededRandom } from '../generate/random.js';
import type { SessionOptions } from '../session/types.js';
import { type Machine, machine } from './machine.js';
import { type Spread, spread } from './spread.js';

export interface BenchModel {
  /** What the model is called in the result. */
  readonly name: string;
  /** Path of the `.onnx` file, or a folder that `cqil partition` wrote. */
  readonly file: string;
}

export interface BenchOptions {
  /** Tokens of the prompt; 128 when absent. */
  readonly promptTokens?: number;
  /** Tokens decoded one by one after it; 32 when absent. */
  readonly decodeTokens?: number;
  /** Measured rounds; 9 when absent. */
  readonly repeats?: number;
  /** Rounds before them that do not count; 2 when absent. */
  readonly warmup?: number;
  readonly session?: SessionOptions;
  readonly signal?: AbortSignal;
  readonly onProgress?: OnProgress;
}

export interface BenchModelResult {
  readonly name: string;
  readonly file: string;
  /** Milliseconds to load the model, once. */
  readonly loadMs: number;
  /** Milliseconds to run the prompt. */
  readonly prefillMs: Spread;
  /** Milliseconds a token, mean over the tokens of a round. */
  readonly decodeMs: Spread;
  /** Time over the first model's in the same round: below 1 is faster. 1 for the first model itself. */
  readonly prefillRatio: Spread;
  readonly decodeRatio: Spread;
}

export interface BenchResult {
  readonly version: 1;
  readonly machine: Machine;
  readonly settings: {
    readonly promptTokens: number;
    readonly decodeTokens: number;
    readonly repeats: number;
    readonly warmup: number;
    readonly threads: number | 'default';
    readonly providers: readonly string[];
  };
  /** One-minute load average before and after: other work on the machine shows here. */
  readonly load: readonly [before: number, after: number];
  readonly models: readonly BenchModelResult[];
}

interface Round {
  readonly prefill: number[];
  readonly decode: number[];
}

/**
 * Measures models side by side: every round runs each of them once, in an order that turns from round to
 * round, so that whatever else the machine does falls on all of them alike.
 *
 * @throws UsageError `BENCH_OPTIONS`; what `openDecoder` and `DecoderSession` throw; the signal's reason
 */
export async function bench(models: readonly BenchModel[], options: BenchOptions = {}): Promise<BenchResult> {
  const { promptTokens = 128, decodeTokens = 32, repeats = 9, warmup = 2, signal, onProgress } = options;
  check(models, { promptTokens, decodeTokens, repeats }, warmup);
  const before = os.loadavg()[0] ?? 0;
  const opened: { model: BenchModel; decoder: DecoderSession; loadMs: number; rounds: Round }[] = [];
  try {
    for (const model of models) {
      signal?.throwIfAborted();
      const start = performance.now();
      const decoder = await openDecoder(model.file, options.session);
      opened.push({ model, decoder, loadMs: performance.now() - start, rounds: { prefill: [], decode: [] } });
      onProgress?.({ phase: 'loading models', done: opened.length, total: models.length, unit: 'models' });
    }
    const total = (warmup + repeats) * models.length;
    let done = 0;
    for (let round = 0; round < warmup + repeats; round++) {
      const turned = opened.map((_, i) => opened[(i + round) % opened.length]!);
      for (const { decoder, rounds } of turned) {
        const { prefillMs, decodeMs } = await measure(decoder, { promptTokens, decodeTokens, signal });
        if (round >= warmup) {
          rounds.prefill.push(prefillMs);
          rounds.decode.push(decodeMs);
        }
        done += 1;
        onProgress?.({ phase: round < warmup ? 'warming up' : 'measuring', done, total, unit: 'runs' });
      }
    }
  } finally {
    await Promise.all(opened.map(({ decoder }) => decoder.dispose()));
  }
  const first = opened[0]!.rounds;
  const ratios = (values: readonly number[], to: readonly number[]) =>
    spread(values.map((value, i) => value / to[i]!));
  return {
    version: 1,
    machine: machine(),
    settings: {
      promptTokens,
      decodeTokens,
      repeats,
      warmup,
      threads: options.session?.threads ?? 'default',
      providers: options.session?.providers ?? ['cpu'],
    },
    load: [before, os.loadavg()[0] ?? 0],
    models: opened.map(({ model, loadMs, rounds }) => ({
      name: model.name,
      file: model.file,
      loadMs,
      prefillMs: spread(rounds.prefill),
      decodeMs: spread(rounds.decode),
      prefillRatio: ratios(rounds.prefill, first.prefill),
      decodeRatio: ratios(rounds.decode, first.decode),
    })),
  };
}

/** One prompt and some tokens after it. The ids are arbitrary: no kernel's time depends on them. */
async function measure(
  decoder: DecoderSession,
  options: { promptTokens: number; decodeTokens: number; signal: AbortSignal | undefined },
): Promise<{ prefillMs: number; decodeMs: number }> {
  const random = seededRandom(1);
  const id = () => Math.floor(random() * 256);
  const prompt = Array.from({ length: options.promptTokens }, id);
  options.signal?.throwIfAborted();
  const start = performance.now();
  let { cache } = await decoder.forward({ inputIds: [prompt], keep: 'last' });
  const prefilled = performance.now();
  for (let i = 0; i < options.decodeTokens; i++) {
    options.signal?.throwIfAborted();
    ({ cache } = await decoder.forward({ inputIds: [[id()]], cache, keep: 'last' }));
  }
  const end = performance.now();
  return { prefillMs: prefilled - start, decodeMs: (end - prefilled) / options.decodeTokens };
}

function check(
  models: readonly BenchModel[],
  counts: Readonly<Record<string, number>>,
  warmup: number,
): void {
  if (models.length === 0) {
    throw new UsageError('BENCH_OPTIONS', 'There is nothing to measure.', { expected: 'one model or more' });
  }
  for (const [name, value] of Object.entries({ ...counts, warmup })) {
    const least = name === 'warmup' ? 0 : 1;
    if (Number.isInteger(value) && value >= least) continue;
    throw new UsageError('BENCH_OPTIONS', `"${name}" makes no sense.`, {
      expected: `a whole number of ${least} or more`,
      found: String(value),
    });
  }
}
