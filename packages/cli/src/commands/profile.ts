import os from 'node:os';
import { defineCommand } from '../command.js';
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
      ).option('threads', {
        type: 'string',
        describe: 'threads inside an operator (default: all)',
        coerce: wholeNumber('threads', 1),
      }),
      'the machine profile to write, a JSON file',
    ),
  async run({ model, dtype, threads, out }, { signal, onProgress, note }) {
    const { measureProfile, productsOf } = await import('@cqil/runtime-gpu');
    const shape = await shapeOf(model, dtype);
    const load = os.loadavg()[0] ?? 0;
    if (load > os.availableParallelism() / 2) {
      note(`The machine is at work already (load ${load.toFixed(1)}): what is measured will be too slow.`);
    }
    // Blocks of 4 bits carry scales; what has more bits is measured as float32.
    const products = productsOf(shape, shape.weightBits < 7 ? 'int4' : 'float32');
    const measured = await measureProfile({ products, threads, signal, onProgress });
    await writeFileAtomic(out, `${JSON.stringify(measured, undefined, 2)}\n`);
    const [device] = measured.devices;
    const rows = (device?.products ?? []).map(({ m, k, n, weightBits, seconds }) => [
      `${m} × ${k} × ${n}`,
      `${weightBits} bit`,
      `${(1e6 * seconds).toFixed(1)} µs`,
      `${((k * n * weightBits) / 8 / seconds / 1e9).toFixed(1)} GB/s`,
      `${((2 * m * k * n) / seconds / 1e9).toFixed(1)} GFLOP/s`,
    ]);
    const text = [
      table([['product', 'weights', 'time', 'weights read', 'rate'], ...rows]),
      `a node ${(1e6 * (device?.launchSeconds ?? 0)).toFixed(2)} µs, a run ${(1e6 * (device?.runSeconds ?? 0)).toFixed(1)} µs`,
      `wrote ${out}: ${measured.name}`,
    ].join('\n');
    return { document: measured, text };
  },
});
