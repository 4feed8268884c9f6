import { defineCommand } from '../command.js';
import { fraction, refusal, wholeNumber, withDtype, withModel, withOut, withTexts } from '../options.js';
import { renderMatrices, renderPerplexity } from '../quantise/render.js';

export const quantise = defineCommand({
  command: 'quantise <model>',
  describe:
    'put the matrices of a model into blocks of 4 or 8 bits, rounded such that its outputs move least',
  examples: [
    [
      'cqil quantise models/smollm2 --bits 4 --text prose=novel.txt code=sources.ts --out models/smollm2-q4',
      'on texts of yours; says what it costs on held-out parts of them',
    ],
    ['cqil quantise models/smollm2 --bits 8 --method rtn --out models/smollm2-q8', 'without any text'],
  ],
  options: (yargs) =>
    withTexts(withOut(withDtype(withModel(yargs)), 'folder to write; must not exist or be empty'))
      .option('bits', {
        describe: "of the layers' matrices: 4 or 8",
        default: 4 as const,
        coerce: (value: unknown) => oneOf('bits', [4, 8] as const, value),
      })
      .option('method', {
        type: 'string',
        choices: ['rtn', 'gptq'] as const,
        default: 'gptq' as const,
        describe: 'gptq: roundings make up for each other, on text; rtn: each value to the nearest step',
      })
      .option('finer', {
        type: 'string',
        describe:
          'share of the weights that may have 8 bits in the place of 4, where the error is largest (default 0)',
        coerce: fraction('finer', 0, 1),
      })
      .option('embedding-bits', {
        describe: 'of the embedding and of what gives the logits: 4, 8 or float',
        default: 8 as const,
        coerce: (value: unknown) => oneOf('embedding-bits', [4, 8, 'float'] as const, value),
      })
      .option('block-size', {
        type: 'string',
        describe: 'inputs that share a scale (default 32)',
        coerce: wholeNumber('block-size', 16),
      })
      .option('accuracy-level', {
        describe: '4: products round their inputs to 8 bits, too, and are faster; 1: they do not',
        default: 4 as const,
        coerce: (value: unknown) => oneOf('accuracy-level', [1, 4] as const, value),
      })
      .option('tokens', {
        type: 'string',
        describe: 'how many tokens to calibrate with (default 16384)',
        coerce: wholeNumber('tokens', 1),
      })
      .option('evaluation-tokens', {
        type: 'string',
        describe: 'how many tokens to measure by (default 6144)',
        coerce: wholeNumber('evaluation-tokens', 1),
      })
      .option('force', {
        type: 'boolean',
        default: false,
        describe: 'replace a folder that an earlier quantise left',
      }),
  async run(args, { signal, onProgress }) {
    const planner = await import('@cqil/planner');
    const source = await planner.locateModel(args.model, { dtype: args.dtype });
    const result = await planner.quantiseModel(source, args.out, {
      bits: args.bits,
      method: args.method,
      embeddingBits: args.embeddingBits,
      accuracyLevel: args.accuracyLevel,
      ...(args.finer === undefined ? {} : { finerShare: args.finer }),
      ...(args.blockSize === undefined ? {} : { blockSize: args.blockSize }),
      ...(args.text === undefined ? {} : { texts: args.text }),
      ...(args.evalText === undefined ? {} : { evaluationTexts: args.evalText }),
      tokens: {
        ...(args.tokens === undefined ? {} : { calibration: args.tokens }),
        ...(args.evaluationTokens === undefined ? {} : { evaluation: args.evaluationTokens }),
      },
      force: args.force,
      signal,
      onProgress,
    });
    const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`;
    const { bytes, quality, left } = result;
    const text = [
      `wrote ${result.root}: ${megabytes(bytes.before)} of weights, now ${megabytes(bytes.after)}`,
      renderMatrices(result.matrices),
      ...left.map(({ name, reason }) => `left as it is: ${name}: ${reason}`),
      ...(quality === undefined ? [] : [renderPerplexity(quality)]),
    ].join('\n');
    return { document: result, text };
  },
});

/** `value` as one of a few, whether it came as a number or as text. */
function oneOf<T extends string | number>(option: string, values: readonly T[], value: unknown): T {
  const found = values.find((candidate) => String(candidate) === String(value));
  if (found !== undefined) return found;
  throw refusal('OPTION_INVALID', `--${option} has no such value.`, {
    expected: values.join(', '),
    found: JSON.stringify(value) ?? 'nothing',
  });
}
