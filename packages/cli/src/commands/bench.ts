import { basename, resolve } from 'node:path';
import type { BenchResult, Spread } from '@cqil/runtime-gpu';
import { defineCommand } from '../command.js';
import { wholeNumber, withDtype } from '../options.js';
import { table } from '../terminal/table.js';

export const bench = defineCommand({
  command: 'bench <models..>',
  describe: 'measure prefill and decode times, models interleaved in one run',
  examples: [['cqil bench models/smollm2 models/smollm2-cqil', 'the second against the first']],
  options: (yargs) =>
    withDtype(
      yargs.positional('models', {
        type: 'string',
        array: true,
        demandOption: true,
        describe:
          'model folders (in parts, too) or .onnx files; the first is what the others are compared with',
      }),
    )
      .option('prompt-tokens', {
        type: 'string',
        describe: 'tokens of the prompt (default 128)',
        coerce: wholeNumber('prompt-tokens', 1),
      })
      .option('decode-tokens', {
        type: 'string',
        describe: 'tokens decoded after it (default 32)',
        coerce: wholeNumber('decode-tokens', 1),
      })
      .option('rounds', {
        type: 'string',
        describe: 'measured rounds, after two that do not count (default 9)',
        coerce: wholeNumber('rounds', 1),
      })
      .option('threads', {
        type: 'string',
        describe: "threads inside an operator (default: ONNX Runtime's choice)",
        coerce: wholeNumber('threads', 1),
      }),
  async run({ models, dtype, promptTokens, decodeTokens, rounds, threads }, { signal, onProgress }) {
    const [{ locateModel }, { bench: measure, isPartition }] = await Promise.all([
      import('@cqil/planner'),
      import('@cqil/runtime-gpu'),
    ]);
    const files = [];
    for (const path of models) {
      // What is in parts is opened as a whole.
      const inParts = await isPartition(path);
      files.push(inParts ? resolve(path) : (await locateModel(path, { dtype })).onnxFile);
    }
    const names = shortNames(models);
    const result = await measure(
      files.map((file, index) => ({ name: names[index] as string, file })),
      {
        ...(promptTokens === undefined ? {} : { promptTokens }),
        ...(decodeTokens === undefined ? {} : { decodeTokens }),
        ...(rounds === undefined ? {} : { repeats: rounds }),
        ...(threads === undefined ? {} : { session: { threads } }),
        signal,
        onProgress,
      },
    );
    return { document: result, text: renderBench(result) };
  },
});

/** The last part of each path, or the whole path where last parts are the same. */
export function shortNames(paths: readonly string[]): string[] {
  const short = paths.map((path) => basename(path));
  return paths.map((path, index) =>
    short.filter((name) => name === short[index]).length > 1 ? path : short[index]!,
  );
}

export function renderBench({ models, settings, machine, load }: BenchResult): string {
  const [first] = models;
  const rows = models.map((model) => [
    model.name,
    milliseconds(model.prefillMs),
    milliseconds(model.decodeMs),
    ...(models.length > 1 ? [ratio(model.prefillRatio), ratio(model.decodeRatio)] : []),
  ]);
  const against = models.length > 1 ? [`prefill × ${first?.name}`, `decode × ${first?.name}`] : [];
  return [
    table([['model', `prefill of ${settings.promptTokens}`, 'decode a token', ...against], ...rows]),
    `Median (first to third quartile) of ${settings.repeats} rounds, in turn; ${settings.decodeTokens} tokens decoded a round.`,
    `${machine.cpu}, ${machine.cores} cores; ONNX Runtime ${machine.onnxruntime}; load before and after: ${load.map((value) => value.toFixed(1)).join(', ')}.`,
    ...(models.length > 1 ? ['Ratios are of times within a round: below 1 is faster.'] : []),
  ].join('\n');
}

function milliseconds({ median, q1, q3 }: Spread): string {
  return `${median.toFixed(2)} ms (${q1.toFixed(2)}–${q3.toFixed(2)})`;
}

function ratio({ median, q1, q3 }: Spread): string {
  return `${median.toFixed(3)} (${q1.toFixed(3)}–${q3.toFixed(3)})`;
}
