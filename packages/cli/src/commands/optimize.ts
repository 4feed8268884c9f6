import { type PlanTarget, UsageError } from '@cqil/core';
import type { Argv } from 'yargs';
import { defineCommand } from '../command.js';
import { deviceList } from '../devices.js';
import { predictedLatency } from '../optimize/latency.js';
import { renderRows } from '../optimize/render.js';
import { amount } from '../optimize/target.js';
import {
  manyTexts,
  oneText,
  wholeNumber,
  wideOptions,
  withDtype,
  withModel,
  withOut,
  withWide,
} from '../options.js';
import { describePlan } from '../plan.js';

export const optimize = defineCommand({
  command: 'optimize <model>',
  describe: 'find, repair, write and judge the plan that a model bears best, in one go',
  examples: [
    [
      'cqil optimize models/smollm2 --max-steps 22 --text prose.txt docs.md code.ts --out models/smollm2-22',
      'on texts of yours',
    ],
    [
      'cqil optimize models/smollm2 --max-quality-loss 5% --out models/smollm2-fast',
      'on text that the model writes itself',
    ],
  ],
  options: (yargs) =>
    withTexts(
      withTarget(
        withWide(
          withOut(withDtype(withModel(yargs)), 'folder to write; work in progress is kept in <out>.work'),
        ),
      ),
    )
      .option('effort', {
        type: 'string',
        choices: ['full', 'quick'] as const,
        default: 'full' as const,
        describe: 'quick: less is measured, pairs only, for a first look',
      })
      .option('recover', {
        type: 'boolean',
        default: true,
        describe: 'refit matrices of the grouped layers in closed form; --no-recover leaves them as they are',
      })
      .option('baselines', {
        type: 'string',
        choices: ['none', 'plain', 'recovered'] as const,
        default: 'plain' as const,
        describe:
          'what else to judge at the same number of steps; recovered: each with the same repair, which takes long',
      })
      .option('form', {
        type: 'string',
        choices: ['branches', 'wide', 'packed'] as const,
        default: 'branches' as const,
        describe:
          'how groups are written; wide: each as one layer with all heads and features, bypass full only; packed: what a group has in common, any bypass',
      })
      .option('profile', {
        type: 'string',
        describe:
          'with --target-speedup: predicts how fast plans are; a file that cqil profile wrote, or "measure"',
        coerce: oneText('profile'),
      })
      .option('devices', {
        type: 'string',
        describe: 'with --profile: devices that branches are to run on (cqil partition), like cpu:0,cpu:1',
        coerce: deviceList('devices'),
      })
      .option('costs', {
        type: 'string',
        describe: "what groups cost, measured before: the cqil.costs.json in another run's folder",
        coerce: oneText('costs'),
      })
      .option('budget', {
        type: 'string',
        describe: 'whole plans to measure for the number of steps that is wanted (default 24; quick: 8)',
        coerce: wholeNumber('budget', 1),
      })
      .option('force', {
        type: 'boolean',
        default: false,
        describe: 'replace an earlier planned model in <out>',
      })
      .option('restart', {
        type: 'boolean',
        default: false,
        describe: 'start anew where <out>.work holds work of other settings',
      }),
  async run(args, context) {
    const { signal, onProgress } = context;
    const { form } = args;
    const target = targetOf(args);
    const [core, planner] = await Promise.all([import('@cqil/core'), import('@cqil/planner')]);
    const source = await planner.locateModel(args.model, { dtype: args.dtype });
    const byLatency = args.profile !== undefined || args.devices !== undefined;
    if (byLatency && !('targetSpeedup' in target)) throw withoutSpeedup();
    const latency = byLatency
      ? await predictedLatency(await planner.shapeOfModel(source), args, context)
      : undefined;
    const tokens = {
      ...(args.tokens === undefined ? {} : { calibration: args.tokens }),
      ...(args.developmentTokens === undefined ? {} : { development: args.developmentTokens }),
      ...(args.evaluationTokens === undefined ? {} : { evaluation: args.evaluationTokens }),
    };
    const { root, report } = await planner.optimize(source, args.out, {
      target,
      ...(latency === undefined ? {} : { latency }),
      effort: args.effort,
      ...(args.text === undefined ? {} : { texts: args.text }),
      ...(args.evalText === undefined ? {} : { evaluationTexts: args.evalText }),
      ...(args.besideText === undefined ? {} : { besideTexts: args.besideText }),
      tokens,
      ...(args.searchTokens === undefined ? {} : { searchTokens: args.searchTokens }),
      ...(args.window === undefined ? {} : { window: args.window }),
      ...(args.costs === undefined ? {} : { costs: await planner.readCosts(args.costs) }),
      ...(args.budget === undefined ? {} : { budget: args.budget }),
      form,
      wide: wideOptions(args),
      recover: args.recover,
      baselines: args.baselines,
      force: args.force,
      restart: args.restart,
      command: commandOf(args),
      signal,
      onProgress,
    });
    const text = [
      `wrote ${root}: ${describePlan(report.plan, core.sequentialSteps(report.plan))}`,
      renderRows(report),
      ...('targetSpeedup' in target ? [report.notes.at(-1) ?? ''] : []),
      `the whole report: ${root}/cqil.report.html`,
    ].join('\n');
    return { document: { root, report }, text };
  },
});

interface TargetArguments {
  readonly maxSteps?: number | undefined;
  readonly targetSpeedup?: number | undefined;
  readonly maxQualityLoss?: number | undefined;
}

function withTarget<T>(yargs: Argv<T>) {
  return yargs
    .option('max-steps', {
      type: 'string',
      describe: 'target: at most so many sequential steps',
      coerce: wholeNumber('max-steps', 1),
    })
    .option('target-speedup', {
      type: 'string',
      describe:
        'target: so many times as fast, like 1.3x: as predicted by --profile, without one layers over steps',
      coerce: (value: unknown) => amount('target-speedup', value, /^(\d+(?:\.\d+)?)x?$/, 1, '1.3x'),
    })
    .option('max-quality-loss', {
      type: 'string',
      describe: 'target: at most so much more perplexity, like 5%',
      coerce: (value: unknown) => amount('max-quality-loss', value, /^(\d+(?:\.\d+)?)%$/, 100, '5%'),
    });
}

function withoutSpeedup(): UsageError {
  return new UsageError('OPTIMIZE_TARGET', 'A profile is for a target speed-up.', {
    expected: '--target-speedup with --profile and --devices',
    found: 'another target',
    hint: 'leave --profile and --devices out',
  });
}

function withTexts<T>(yargs: Argv<T>) {
  return yargs
    .option('text', {
      type: 'string',
      array: true,
      describe:
        'texts to measure and fit on, of the kinds that the model is for: files, kind=file, npm:<package>, or self; default: text that the model writes',
      coerce: manyTexts('text'),
    })
    .option('eval-text', {
      type: 'string',
      array: true,
      describe: 'texts to judge by; default: a part of each text is put aside for that',
      coerce: manyTexts('eval-text'),
    })
    .option('beside-text', {
      type: 'string',
      array: true,
      describe: 'texts to judge by that are reported beside the rest, such as another language',
      coerce: manyTexts('beside-text'),
    })
    .option('tokens', {
      type: 'string',
      describe: 'tokens to fit on (default 98304; quick: 24576)',
      coerce: wholeNumber('tokens', 2),
    })
    .option('development-tokens', {
      type: 'string',
      describe: 'tokens to choose by (default 12288; quick: 4096)',
      coerce: wholeNumber('development-tokens', 2),
    })
    .option('evaluation-tokens', {
      type: 'string',
      describe: 'tokens to judge by (default 24576; quick: 6144)',
      coerce: wholeNumber('evaluation-tokens', 2),
    })
    .option('search-tokens', {
      type: 'string',
      describe: 'tokens, of those to choose by, that whole plans are measured on (default 6144; quick: 1536)',
      coerce: wholeNumber('search-tokens', 2),
    })
    .option('window', {
      type: 'string',
      describe: 'tokens that are run at once (default 512)',
      coerce: wholeNumber('window', 8),
    });
}

function targetOf({ maxSteps, targetSpeedup, maxQualityLoss }: TargetArguments): PlanTarget {
  const given = [
    ...(maxSteps === undefined ? [] : [{ maxSteps }]),
    ...(targetSpeedup === undefined ? [] : [{ targetSpeedup }]),
    ...(maxQualityLoss === undefined ? [] : [{ maxQualityLoss }]),
  ];
  const [target] = given;
  if (target !== undefined && given.length === 1) return target;
  throw new UsageError('OPTIMIZE_TARGET', 'One target is needed, and only one.', {
    expected: '--max-steps N, --target-speedup 1.3x or --max-quality-loss 5%',
    found: `${given.length} of them`,
    hint: 'see cqil optimize --help',
  });
}

/** The command that makes the model again, but for paths that are another's. */
function commandOf(args: Record<string, unknown> & TargetArguments): string {
  const words = ['cqil', 'optimize', String(args.model)];
  if (args.maxSteps !== undefined) words.push('--max-steps', String(args.maxSteps));
  if (args.targetSpeedup !== undefined) words.push('--target-speedup', `${args.targetSpeedup}x`);
  if (args.maxQualityLoss !== undefined) {
    words.push('--max-quality-loss', `${Number((100 * args.maxQualityLoss).toPrecision(6))}%`);
  }
  if (args.effort === 'quick') words.push('--effort', 'quick');
  const lists = { text: 'text', evalText: 'eval-text', besideText: 'beside-text' };
  for (const [key, option] of Object.entries(lists)) {
    const list = args[key];
    if (Array.isArray(list)) words.push(`--${option}`, ...list.map(String));
  }
  const values = {
    dtype: 'dtype',
    costs: 'costs',
    tokens: 'tokens',
    developmentTokens: 'development-tokens',
    evaluationTokens: 'evaluation-tokens',
    searchTokens: 'search-tokens',
    window: 'window',
    budget: 'budget',
    profile: 'profile',
    devices: 'devices',
    kv: 'kv',
    storage: 'storage',
  };
  for (const [key, option] of Object.entries(values)) {
    if (args[key] !== undefined) words.push(`--${option}`, String(args[key]));
  }
  if (args.form !== 'branches') words.push('--form', String(args.form));
  if (args.recover === false) words.push('--no-recover');
  if (args.baselines !== 'plain') words.push('--baselines', String(args.baselines));
  words.push('--out', String(args.out));
  return words.map(quoted).join(' ');
}

/** As a shell reads it as one word. */
function quoted(word: string): string {
  return /^[\w.,/=:%@-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
