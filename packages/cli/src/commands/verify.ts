import { UsageError } from '@cqil/core';
import type { KindsEvaluation, KindWindows, ModelSource } from '@cqil/planner';
import { type CommandContext, defineCommand } from '../command.js';
import { readText } from '../model.js';
import { manyTexts, oneText, wholeNumber, withDtype } from '../options.js';
import { renderQuality, renderReport } from '../verify/render.js';

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
          'held-out text files, kind=file, or npm:<package>: measures perplexity, KL divergence and top-1 agreement by kind',
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
    const texts = args.text === undefined ? [] : await kindsOf(args.text, original.root, args.tokens);
    const report = await planner.verify(original, rewritten, {
      ...(plan === undefined ? {} : { plan }),
      ...(texts.length === 0 ? {} : { text: texts.flatMap(({ windows }) => windows.flat()) }),
      quality: false,
      signal,
      onProgress,
    });
    if (!report.ok || texts.length === 0) {
      return { document: report, text: renderReport(report), failed: !report.ok };
    }
    const quality = await qualityOf(original, rewritten, texts, { signal, onProgress });
    return { document: { ...report, quality }, text: `${renderReport(report)}\n\n${renderQuality(quality)}` };
  },
});

const WINDOW = 512;

/** The first tokens of each text, in windows, so that every kind of text counts the same. */
async function kindsOf(specs: readonly string[], root: string, count = 2048): Promise<KindWindows[]> {
  const { encodeStart, loadText, loadTokenizer, parseTextSpec } = await import('@cqil/planner');
  const tokenizer = await loadTokenizer(root);
  const kinds = new Map<string, number[][]>();
  for (const given of specs) {
    const { kind, spec } = parseTextSpec(given);
    const ids = encodeStart(tokenizer, (await loadText(spec)).text, count);
    if (ids.length < 2) {
      throw new UsageError('TEXT_TOO_SHORT', `${spec} is too short to measure anything on.`, {
        expected: 'at least 2 tokens',
        found: `${ids.length}`,
        hint: 'Give a longer text.',
      });
    }
    const windows = Array.from({ length: Math.ceil(ids.length / WINDOW) }, (_, i) =>
      ids.slice(i * WINDOW, (i + 1) * WINDOW),
    ).filter((window) => window.length > 1);
    kinds.set(kind, [...(kinds.get(kind) ?? []), ...windows]);
  }
  return [...kinds].map(([kind, windows]) => ({ kind, windows }));
}

async function qualityOf(
  original: ModelSource,
  rewritten: ModelSource,
  kinds: readonly KindWindows[],
  run: Pick<CommandContext, 'signal' | 'onProgress'>,
): Promise<KindsEvaluation> {
  const [{ evaluateKinds }, { DecoderSession }] = await Promise.all([
    import('@cqil/planner'),
    import('@cqil/runtime-gpu'),
  ]);
  await using before = await DecoderSession.open(original.onnxFile);
  await using after = await DecoderSession.open(rewritten.onnxFile);
  // Awaited here: the sessions are freed when this function ends.
  return await evaluateKinds(before, after, { kinds, window: WINDOW }, run);
}
