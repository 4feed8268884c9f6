import { defineCommand } from '../command.js';
import { readText } from '../model.js';
import { manyTexts, oneText, wholeNumber, withDtype } from '../options.js';
import { renderReport } from '../verify/render.js';

export const verify = defineCommand({
  command: 'verify <original> <rewritten>',
  describe: 'check a rewritten model against its original',
  examples: [
    ['cqil verify models/smollm2 models/smollm2-cqil', 'structure, weights, and the numbers it computes'],
    [
      'cqil verify models/smollm2 models/smollm2-cqil --text held-out.txt',
      'perplexity and KL divergence, too',
    ],
  ],
  options: (yargs) =>
    withDtype(
      yargs
        .positional('original', {
          type: 'string',
          demandOption: true,
          describe: 'a model folder, or an .onnx file',
          coerce: oneText('original'),
        })
        .positional('rewritten', {
          type: 'string',
          demandOption: true,
          describe: 'what cqil rewrite made of it',
          coerce: oneText('rewritten'),
        }),
    )
      .option('plan', {
        type: 'string',
        describe: 'the plan to hold it to; default: the one it carries',
        coerce: oneText('plan'),
      })
      .option('text', {
        type: 'string',
        array: true,
        describe:
          'held-out text files, or npm:<package>: measures perplexity, KL divergence and top-1 agreement',
        coerce: manyTexts('text'),
      })
      .option('tokens', {
        type: 'string',
        describe: 'how many tokens of each text to use (default 2048)',
        coerce: wholeNumber('tokens', 2),
      }),
  async run(args, { signal, onProgress }) {
    const [core, planner] = await Promise.all([import('@cqil/core'), import('@cqil/planner')]);
    const rewritten = await planner.locateModel(args.rewritten, { dtype: args.dtype });
    // Of an original with several graphs, the one that was rewritten is meant.
    const dtype = args.dtype ?? (rewritten.dtype === 'as-is' ? undefined : rewritten.dtype);
    const original = await planner.locateModel(args.original, { dtype });
    const plan = args.plan === undefined ? undefined : core.parsePlan(await readText(args.plan));
    const report = await planner.verify(original, rewritten, {
      ...(plan === undefined ? {} : { plan }),
      ...(args.text === undefined ? {} : { text: await tokensOf(args.text, original.root, args.tokens) }),
      signal,
      onProgress,
    });
    return { document: report, text: renderReport(report), failed: !report.ok };
  },
});

/** The first tokens of each text, so that every kind of text counts. */
async function tokensOf(specs: readonly string[], root: string, count = 2048): Promise<number[]> {
  const { encodeStart, loadText, loadTokenizer } = await import('@cqil/planner');
  const tokenizer = await loadTokenizer(root);
  const ids: number[] = [];
  for (const spec of specs) ids.push(...encodeStart(tokenizer, (await loadText(spec)).text, count));
  return ids;
}
