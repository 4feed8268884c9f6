import { defineCommand } from '../command.js';
import { deviceList } from '../devices.js';
import { writeFileAtomic } from '../files.js';
import { oneText, refusal, withDtype, withModel, withOut } from '../options.js';

export const partition = defineCommand({
  command: 'partition <model>',
  describe: 'cut a rewritten model into graphs for several devices, the branches of a group side by side',
  examples: [
    [
      'cqil partition models/smollm2-22 --devices cpu:0,cpu:1 --out models/smollm2-22-two',
      'checked before it is kept',
    ],
    ['cqil partition models/smollm2-22 --devices cpu:0,cpu:1 --trunk first --out two', 'one thread each'],
  ],
  options: (yargs) =>
    withOut(withDtype(withModel(yargs)), 'folder to write; must not exist or be empty')
      .option('devices', {
        type: 'string',
        demandOption: true,
        describe: 'devices, branch k of each group on the k-th: cpu:0,cpu:1 (a processor each)',
        coerce: deviceList('devices'),
      })
      .option('trunk', {
        type: 'string',
        choices: ['all', 'first'] as const,
        default: 'all' as const,
        describe: 'where layers in no group and the head run: on all devices or on the first alone',
      })
      .option('verify', {
        type: 'boolean',
        default: true,
        describe: 'run the parts and the whole graph on the same tokens; --no-verify leaves that out',
      })
      .option('trace', {
        type: 'string',
        describe: 'decode a few tokens and write a timeline for chrome://tracing or Perfetto to this file',
        coerce: oneText('trace'),
      })
      .option('force', {
        type: 'boolean',
        default: false,
        describe: 'replace a folder that an earlier partition left',
      }),
  async run({ model, dtype, out, devices, trunk, verify, trace, force }, { signal, onProgress }) {
    const [planner, runtime] = await Promise.all([import('@cqil/planner'), import('@cqil/runtime-gpu')]);
    const source = await planner.locateModel(model, { dtype });
    const result = await planner.partitionModel(source, out, {
      devices: devicesOf(devices),
      spread: trunk === 'all',
      check: verify,
      force,
      signal,
      onProgress,
    });
    const { manifest, parity } = result;
    const exchanges = manifest.groups.reduce((sum, group) => sum + group.exchanges, 0);
    const lines = [
      `wrote ${result.root}: ${manifest.parts.length} parts on ${manifest.devices.join(', ')}`,
      `${manifest.groups.length} groups, ${exchanges} exchanges between devices a step`,
    ];
    if (parity !== undefined) {
      lines.push(
        `checked: ${parity.steps} steps beside the whole graph, logits differ by ${parity.largest.toPrecision(2)} at most`,
      );
    }
    if (trace !== undefined) {
      await writeTrace(runtime, result.root, trace, signal);
      lines.push(`wrote ${trace}: open it in chrome://tracing or ui.perfetto.dev`);
    }
    return { document: result, text: lines.join('\n') };
  },
});

function devicesOf(devices: readonly string[] = []): readonly string[] {
  if (devices.length > 0) return devices;
  throw refusal('OPTION_INVALID', '--devices names no device.', {
    expected: 'cpu:0,cpu:1',
    found: 'nothing',
  });
}

const TRACED_TOKENS = 24;

/** The timeline of a few steps of decoding. */
async function writeTrace(
  { generate, openPartitioned }: typeof import('@cqil/runtime-gpu'),
  folder: string,
  file: string,
  signal: AbortSignal | undefined,
): Promise<void> {
  const model = await openPartitioned(folder, { trace: true });
  try {
    await generate(model, {
      promptIds: [1, 2, 3, 4],
      maxTokens: TRACED_TOKENS,
      ...(signal === undefined ? {} : { signal }),
    });
    await writeFileAtomic(file, JSON.stringify(model.trace()));
  } finally {
    await model.dispose();
  }
}
