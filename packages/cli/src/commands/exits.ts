import type { ExitsReport } from '@cqil/planner';
import { defineCommand } from '../command.js';
import { wholeNumber, withDtype, withModel, withTexts } from '../options.js';
import { table } from '../terminal/table.js';

export const exits = defineCommand({
  command: 'exits <model>',
  describe: 'whether tokens could leave the stack of layers early, and whether that would pay',
  examples: [
    [
      'cqil exits models/smollm2 --text prose=novel.txt code=sources.ts',
      'share of tokens that leave, and weights read, under promises of 99, 95 and 90 % agreement',
    ],
  ],
  options: (yargs) =>
    withTexts(withDtype(withModel(yargs)))
      .option('tokens', {
        type: 'string',
        describe: 'how many tokens to choose thresholds by (default 12288)',
        coerce: wholeNumber('tokens', 1),
      })
      .option('evaluation-tokens', {
        type: 'string',
        describe: 'how many tokens to judge by (default 6144)',
        coerce: wholeNumber('evaluation-tokens', 1),
      })
      .option('window', {
        type: 'string',
        describe: 'tokens that are run at once (default 512)',
        coerce: wholeNumber('window', 32),
      }),
  async run(args, { signal, onProgress }) {
    const planner = await import('@cqil/planner');
    const { DecoderSession } = await import('@cqil/runtime-gpu');
    const source = await planner.locateModel(args.model, { dtype: args.dtype });
    const sets = await planner.openTextSets(await planner.loadTokenizer(source.root), {
      texts: args.text ?? ['self'],
      ...(args.evalText === undefined ? {} : { evaluationTexts: args.evalText }),
      tokens: {
        calibration: args.window ?? 512,
        development: args.tokens ?? 12_288,
        evaluation: args.evaluationTokens ?? 6144,
      },
      ...(args.window === undefined ? {} : { window: args.window }),
      openModel: () => DecoderSession.open(source.onnxFile),
      signal,
      onProgress,
    });
    const report = await planner.measureExits(await planner.readModel(source.onnxFile), {
      development: sets.development,
      evaluation: await sets.openEvaluation(),
      signal,
      onProgress,
    });
    return { document: report, text: render(report) };
  },
});

function render({ steps, borders, agreement, costs, tokens, results }: ExitsReport): string {
  const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
  const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`;
  const strictest = Math.max(...results.map(({ promised }) => promised));
  const best = Math.min(...results.filter(({ promised }) => promised === strictest).map(({ cost }) => cost));
  const verdict =
    best < 0.98 ? 'early exit could pay on this model' : 'early exit does not pay on this model';
  return [
    `${steps} steps of ${megabytes(costs.layer)} each, ${megabytes(costs.keyValue)} of it for keys and values; a head of ${megabytes(costs.head)}`,
    table([
      ['tokens decided after step', ...borders.map(String)],
      ['the same as at the end', ...agreement.map(percent)],
    ]),
    table([
      ['confidence by', 'promised', 'exits after', 'tokens that leave', 'agreement', 'weights read a token'],
      ...results.map(({ score, promised, borders: at, exits: shares, agreement: kept, threshold, cost }) => [
        score,
        percent(promised),
        threshold === null ? 'none keeps it' : at.join(', '),
        percent(1 - (shares.at(-1) ?? 1)),
        percent(kept),
        percent(cost),
      ]),
    ]),
    `thresholds chosen on ${tokens.development} tokens, judged on ${tokens.evaluation} others`,
    `where ${percent(strictest)} are promised, ${percent(best)} of the weights would be read: ${verdict}`,
  ].join('\n');
}
