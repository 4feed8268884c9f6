import os from 'node:os';
import { defineCommand } from '../command.js';
import { deviceList } from '../devices.js';
import { writeFileAtomic } from '../files.js';
import { oneText, wholeNumber, withDtype, withOut } from '../options.js';
import { shapeOf } from '../simulate/shape.js';
import { table } from '../terminal/table.js';

export const profile = defineCommand({
  command: 'profile <model>',
  describe: "measure what this machine's CPU takes for a model's products, for cqil simulate",
  examples: [
    ['cqil profile models/smollm2 --out cpu.json', 'then: cqil simulate models/smollm2 --profile cpu.json …'],
  ],
  options: (yargs) =>
    withOut(
      withDtype(
        yargs.positional('model', {
          type: 'string',
          demandOption: true,
          describe: 'a model folder, or a name that cqil simulate knows',
          coerce: oneText('model'),
        }),
      )
        .option('threads', {
          type: 'string',
          describe: 'threads inside an operator (default: all)',
          coerce: wholeNumber('threads', 1),
        })
        .option('devices', {
          type: 'string',
          describe:
            'devices of a partition, like cpu:0,cpu:1: a thread each, at the same time, and all together; default: one session',
          coerce: deviceList('devices'),
        })
        .conflicts('devices', 'threads')
        .option('quick', {
          type: 'boolean',
          default: false,
          describe: 'measure each kernel for a fifth of a second at most, not a second',
        }),
      'the machine profile to write, a JSON file',
    ),
  async run({ model, dtype, threads, devices, quick, out }, { signal, onProgress, note }) {
    const { measurePartition, measureProfile, workOf } = await import('@cqil/runtime-gpu');
    const shape = await shapeOf(model, dtype);
    const load = os.loadavg()[0] ?? 0;
    if (load > os.availableParallelism() / 2) {
      note(`The machine is at work already (load ${load.toFixed(1)}): what is measured will be too slow.`);
    }
    const options = { ...workOf(shape), ...(quick ? { secondsEach: 0.2 } : {}), signal, onProgress };
    const measured =
      devices === undefined
        ? await measureProfile({ ...options, threads })
        : await measurePartition(devices, options);
    await writeFileAtomic(out, `${JSON.stringify(measured, undefined, 2)}\n`);
    const [device] = measured.devices;
    const rows = (device?.products ?? []).map(({ m, k, n, weightBits, seconds }) => [
      `${m} × ${k} × ${n}`,
      `${weightBits} bit`,
      `${(1e6 * seconds).toFixed(1)} µs`,
      `${((k * n * weightBits) / 8 / seconds / 1e9).toFixed(1)} GB/s`,
      `${((2 * m * k * n) / seconds / 1e9).toFixed(1)} GFLOP/s`,
    ]);
    const attentions = (device?.attention ?? []).map(({ tokens, context, heads, seconds }) => [
      `${tokens} behind ${context}`,
      `${heads} heads`,
      `${(1e6 * seconds).toFixed(1)} µs`,
    ]);
    const text = [
      table([['product', 'weights', 'time', 'weights read', 'rate'], ...rows]),
      table([['attention', 'of', 'time'], ...attentions]),
      `a node ${(1e6 * (device?.launchSeconds ?? 0)).toFixed(2)} µs, a run ${(1e6 * (device?.runSeconds ?? 0)).toFixed(1)} µs`,
      `wrote ${out}: ${measured.name}`,
    ].join('\n');
    return { document: measured, text };
  },
});
