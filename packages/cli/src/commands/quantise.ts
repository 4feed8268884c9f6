import type { QdqModel, QuantisedModel } from '@cqil/planner';
import { defineCommand } from '../command.js';
import { fraction, refusal, wholeNumber, withDtype, withModel, withOut, withTexts } from '../options.js';
import { renderMatrices, renderPerplexity, renderQdq } from '../quantise/render.js';

export const quantise = defineCommand({
  command: 'quantise <model>',
  describe:
    'put the matrices of a model into blocks of 4 or 8 bits, or the whole model into codes for integer engines',
  examples: [
    [
      'cqil quantise models/smollm2 --bits 4 --text prose=novel.txt code=sources.ts --out models/smollm2-q4',
      'on texts of yours; says what it costs on held-out parts of them',
    ],
    ['cqil quantise models/smollm2 --bits 8 --method rtn --out models/smollm2-q8', 'without any text'],
    [
      'cqil quantise models/smollm2 --format qdq --text novel.txt code=sources.ts --out models/smollm2-qdq',
      'QuantizeLinear and DequantizeLinear around products and along the residual stream',
    ],
  ],
  options: (yargs) =>
    withTexts(withOut(withDtype(withModel(yargs)), 'folder to write; must not exist or be empty'))
      .option('format', {
        type: 'string',
        choices: ['blocks', 'qdq'] as const,
        default: 'blocks' as const,
        describe: 'blocks: weights for MatMulNBits; qdq: weights and what is computed, for integer engines',
      })
      .option('bits', {
        describe: "blocks: of the layers' matrices, 4 or 8 (default 4)",
        coerce: (value: unknown) => oneOf('bits', [4, 8] as const, value),
      })
      .option('method', {
        type: 'string',
        choices: ['rtn', 'gptq'] as const,
        describe:
          'blocks: gptq (default): roundings make up for each other, on text; rtn: each value to the nearest step',
      })
      .option('finer', {
        type: 'string',
        describe:
          'blocks: share of the weights that may have 8 bits in the place of 4, where the error is largest (default 0)',
        coerce: fraction('finer', 0, 1),
      })
      .option('embedding-bits', {
        describe: 'blocks: of the embedding and of what gives the logits, 4, 8 or float (default 8)',
        coerce: (value: unknown) => oneOf('embedding-bits', [4, 8, 'float'] as const, value),
      })
      .option('block-size', {
        type: 'string',
        describe: 'blocks: inputs that share a scale (default 32)',
        coerce: wholeNumber('block-size', 16),
      })
      .option('accuracy-level', {
        describe:
          'blocks: with 4 (default) products round their inputs to 8 bits, too, and are faster; with 1 they do not',
        coerce: (value: unknown) => oneOf('accuracy-level', [1, 4] as const, value),
      })
      .option('input-bits', {
        describe: 'qdq: of what products read, 8, 16, or auto (default): 16 where 8 err too much',
        coerce: (value: unknown) => oneOf('input-bits', ['auto', 8, 16] as const, value),
      })
      .option('input-tolerance', {
        type: 'string',
        describe: 'qdq: relative squared error that 8 bits of an input may have with auto',
        coerce: fraction('input-tolerance', 0, 1),
      })
      .option('step-rule', {
        type: 'string',
        choices: ['error', 'max', 'percentile'] as const,
        describe: 'qdq: how steps of what products read are chosen (default error: the least squared error)',
      })
      .option('residual-bits', {
        describe: 'qdq: of the residual stream, 8 or 16 (default)',
        coerce: (value: unknown) => oneOf('residual-bits', [8, 16] as const, value),
      })
      .option('residual-steps', {
        type: 'string',
        choices: ['few', 'one'] as const,
        describe:
          'qdq: few (default): another step begins where one would err too much; one for the whole model',
      })
      .option('rotate', {
        type: 'string',
        choices: ['auto', 'off'] as const,
        describe:
          'qdq: auto (default): spread massive activations over all entries, where the graph permits that',
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
    refuseOthers(args);
    const planner = await import('@cqil/planner');
    const source = await planner.locateModel(args.model, { dtype: args.dtype });
    const common = {
      ...(args.text === undefined ? {} : { texts: args.text }),
      ...(args.evalText === undefined ? {} : { evaluationTexts: args.evalText }),
      tokens: {
        ...(args.tokens === undefined ? {} : { calibration: args.tokens }),
        ...(args.evaluationTokens === undefined ? {} : { evaluation: args.evaluationTokens }),
      },
      force: args.force,
      signal,
      onProgress,
    };
    if (args.format === 'qdq') {
      const result = await planner.quantiseModelQdq(source, args.out, {
        ...common,
        ...(args.inputBits === undefined ? {} : { inputBits: args.inputBits }),
        ...(args.inputTolerance === undefined ? {} : { inputTolerance: args.inputTolerance }),
        ...(args.stepRule === undefined ? {} : { stepRule: args.stepRule }),
        ...(args.residualBits === undefined ? {} : { residualBits: args.residualBits }),
        ...(args.rotate === undefined ? {} : { rotate: args.rotate }),
        ...(args.residualSteps === 'one' ? { residualTolerance: Number.POSITIVE_INFINITY } : {}),
      });
      return { document: result, text: summary(result, renderQdq(result)) };
    }
    const result = await planner.quantiseModel(source, args.out, {
      ...common,
      ...(args.bits === undefined ? {} : { bits: args.bits }),
      method: args.method ?? 'gptq',
      ...(args.embeddingBits === undefined ? {} : { embeddingBits: args.embeddingBits }),
      ...(args.accuracyLevel === undefined ? {} : { accuracyLevel: args.accuracyLevel }),
      ...(args.finer === undefined ? {} : { finerShare: args.finer }),
      ...(args.blockSize === undefined ? {} : { blockSize: args.blockSize }),
    });
    return { document: result, text: summary(result, renderMatrices(result.matrices)) };
  },
});

/** Options of one format, which the other does nothing with. */
const OPTIONS_OF = {
  blocks: ['bits', 'method', 'finer', 'embedding-bits', 'block-size', 'accuracy-level'],
  qdq: ['input-bits', 'input-tolerance', 'step-rule', 'residual-bits', 'residual-steps', 'rotate'],
} as const;

function refuseOthers(args: { readonly format: 'blocks' | 'qdq'; readonly [option: string]: unknown }): void {
  const other = args.format === 'qdq' ? 'blocks' : 'qdq';
  const given = OPTIONS_OF[other].find((option) => args[option] !== undefined);
  if (given === undefined) return;
  throw refusal('OPTION_INVALID', `--${given} means nothing with --format ${args.format}.`, {
    expected: `options of this format: ${OPTIONS_OF[args.format].map((option) => `--${option}`).join(', ')}`,
    found: `--${given}`,
    hint: `leave it out, or choose --format ${other}`,
  });
}

function summary({ root, bytes, left, quality }: QuantisedModel | QdqModel, middle: string): string {
  const megabytes = (count: number) => `${(count / 1e6).toFixed(1)} MB`;
  return [
    `wrote ${root}: ${megabytes(bytes.before)} of weights, now ${megabytes(bytes.after)}`,
    middle,
    ...left.map(({ name, reason }) => `left as it is: ${name}: ${reason}`),
    ...(quality === undefined ? [] : [renderPerplexity(quality)]),
  ].join('\n');
}

/** `value` as one of a few, whether it came as a number or as text. */
function oneOf<T extends string | number>(
  option: string,
  values: readonly T[],
  value: unknown,
): T | undefined {
  if (value === undefined) return undefined;
  const found = values.find((candidate) => String(candidate) === String(value));
  if (found !== undefined) return found;
  throw refusal('OPTION_INVALID', `--${option} has no such value.`, {
    expected: values.join(', '),
    found: JSON.stringify(value) ?? 'nothing',
  });
}
