import {
  type Bypass,
  calibrateLaunch,
  datasheetNames,
  datasheetProfile,
  EAGER_KERNELS,
  FUSED_KERNELS,
  type MachineProfile,
  type ModelShape,
  modelShapeNames,
  type Plan,
  parsePlan,
  parseProfile,
  UsageError,
  uniformPlan,
} from '@cqil/core';
import type { Argv } from 'yargs';
import { defineCommand } from '../command.js';
import { writeFileAtomic } from '../files.js';
import { readJson } from '../model.js';
import { oneText, refusal, wholeNumber, withDtype } from '../options.js';
import { compare } from '../simulate/compare.js';
import { renderPage } from '../simulate/page.js';
import { renderComparison } from '../simulate/render.js';
import { shapeOf } from '../simulate/shape.js';
import { parseBypass } from './plan.js';

interface Geometry {
  readonly groupSize?: number | undefined;
  readonly bypass?: Bypass | undefined;
  readonly start?: number | undefined;
  readonly end?: number | undefined;
}

export const simulate = defineCommand({
  command: 'simulate <model>',
  describe: 'predict what a plan would take on devices that need not be here',
  examples: [
    [
      'cqil simulate llama-7b --group-size 2 --start 12 --end 30 --devices a100-nvlink:2',
      "the authors' plan on the authors' machine",
    ],
    [
      'cqil simulate models/smollm2 --plan plan.json --devices epyc-9654:2 --trace trace.json --html plan.html',
      'a plan of a model of yours on two sockets, as a trace and as a page',
    ],
    [
      'cqil simulate llama-7b --group-size 2 --start 12 --end 30 --runtime eager --unplanned-ms 39.2',
      'with the launch cost that explains what the unplanned model takes',
    ],
  ],
  options: (yargs) => withMachine(withGeometry(withSubject(yargs))),
  async run(args) {
    const { model, dtype, promptTokens = 128, streams = 1 } = args;
    const given = await shapeOf(model, dtype);
    const shape: ModelShape =
      args.runtime === undefined
        ? given
        : { ...given, kernels: args.runtime === 'eager' ? EAGER_KERNELS : FUSED_KERNELS };
    const plan = await planOf(args, shape.layers);
    const width = Math.max(2, ...plan.groups.map(({ layers }) => layers.length));
    const machine =
      args.profile === undefined
        ? namedMachine(args.devices ?? 'a100-nvlink', width)
        : parseProfile(await readJson(args.profile));
    const profile =
      args.unplannedMs === undefined
        ? machine
        : calibrateLaunch(machine, shape, { tokens: 1, context: promptTokens }, args.unplannedMs / 1000);
    const compared = compare({ shape, plan, profile, promptTokens, streams });
    const written: string[] = [];
    if (args.trace !== undefined) {
      await writeFileAtomic(args.trace, `${JSON.stringify(compared.trace)}\n`);
      written.push(`wrote ${args.trace}: ${compared.shown.name}; open it in chrome://tracing or Perfetto`);
    }
    if (args.html !== undefined) {
      await writeFileAtomic(args.html, renderPage(compared));
      written.push(`wrote ${args.html}`);
    }
    const text = [renderComparison(compared.comparison), ...written].join('\n');
    return { document: compared.comparison, text };
  },
});

function withSubject<T>(yargs: Argv<T>) {
  return withDtype(
    yargs.positional('model', {
      type: 'string',
      demandOption: true,
      describe: `a model folder, or a name: ${modelShapeNames().join(', ')}`,
      coerce: oneText('model'),
    }),
  )
    .option('prompt-tokens', {
      type: 'string',
      describe: 'tokens of the prompt, and of the cache that a token is decoded behind (default 128)',
      coerce: wholeNumber('prompt-tokens', 1),
    })
    .option('trace', {
      type: 'string',
      describe: 'one token of the plan as a Chrome trace, a JSON file',
      coerce: oneText('trace'),
    })
    .option('html', {
      type: 'string',
      describe: 'the comparison as a page with plots, one file',
      coerce: oneText('html'),
    });
}

function withGeometry<T>(yargs: Argv<T>) {
  return yargs
    .option('plan', { type: 'string', describe: 'a plan, a JSON file', coerce: oneText('plan') })
    .option('group-size', {
      type: 'string',
      describe: 'or P: layers in a group',
      coerce: wholeNumber('group-size', 2),
    })
    .option('bypass', {
      type: 'string',
      describe: 'D: bypass distance, or full (default 0)',
      coerce: parseBypass,
    })
    .option('start', {
      type: 'string',
      describe: 'S: first layer that is grouped (default 0)',
      coerce: wholeNumber('start'),
    })
    .option('end', {
      type: 'string',
      describe: 'E: one past the last layer that is grouped (default: all)',
      coerce: wholeNumber('end'),
    });
}

function withMachine<T>(yargs: Argv<T>) {
  return yargs
    .option('devices', {
      type: 'string',
      describe: `devices by datasheet, with their number: ${datasheetNames().join(', ')} (default a100-nvlink, as many as the largest group)`,
      coerce: oneText('devices'),
    })
    .option('profile', {
      type: 'string',
      describe: 'or a machine profile, a JSON file',
      coerce: oneText('profile'),
    })
    .option('runtime', {
      type: 'string',
      choices: ['fused', 'eager'] as const,
      describe: "how many kernels a layer is (default: the model's graph, fused for a name)",
    })
    .option('unplanned-ms', {
      type: 'string',
      describe: 'what a token takes unplanned on the first device, in ms: sets the cost of launches',
      coerce: positive('unplanned-ms'),
    })
    .option('streams', {
      type: 'string',
      describe: 'streams a device that branches run in side by side (default 1)',
      coerce: wholeNumber('streams', 1),
    })
    .conflicts('devices', 'profile');
}

/** A plan from a file or from P, D, S and E; without either, none. */
async function planOf(
  args: Geometry & { readonly plan?: string | undefined },
  layers: number,
): Promise<Plan> {
  const { plan, groupSize, bypass, start, end } = args;
  const geometry = [groupSize, bypass, start, end].some((one) => one !== undefined);
  if (plan !== undefined && !geometry) return parsePlan(await readJson(plan), { layers });
  if (plan === undefined && groupSize !== undefined) {
    return uniformPlan({ layers, groupSize, bypass, start, end });
  }
  throw new UsageError('PLAN_OPTIONS', 'These options make no plan.', {
    expected: '--plan alone, or --group-size with --bypass, --start and --end',
    found: plan !== undefined ? 'both' : 'no --plan and no --group-size',
    hint: 'see cqil simulate --help',
  });
}

/** `a100-nvlink:4`, or `a100-nvlink` for as many as `count`. */
function namedMachine(text: string, count: number): MachineProfile {
  const [name = '', number, ...rest] = text.split(':');
  const wanted = number === undefined ? count : /^\d+$/.test(number) ? Number(number) : Number.NaN;
  if (rest.length > 0 || Number.isNaN(wanted)) {
    throw new UsageError('OPTION_INVALID', '--devices is not a name with a number.', {
      expected: 'a100-nvlink:2, say',
      found: JSON.stringify(text),
      hint: `the names are ${datasheetNames().join(', ')}`,
    });
  }
  return datasheetProfile(name, wanted);
}

/** `value` as a number above 0. */
function positive(option: string): (value: unknown) => number | undefined {
  return (value) => {
    if (value === undefined) return undefined;
    const number = typeof value === 'string' && value.trim() !== '' ? Number(value) : Number.NaN;
    if (number > 0 && Number.isFinite(number)) return number;
    throw refusal('OPTION_INVALID', `--${option} is not a number it can use.`, {
      expected: 'a number above 0',
      found: JSON.stringify(value) ?? 'nothing',
      hint: `write it as --${option} 39.2`,
    });
  };
}
