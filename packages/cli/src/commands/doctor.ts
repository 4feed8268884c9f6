import type { Examination, ProviderUsage } from '@cqil/runtime-gpu';
import { defineCommand } from '../command.js';
import { withDtype } from '../options.js';
import { table } from '../terminal/table.js';

export const doctor = defineCommand({
  command: 'doctor [model]',
  describe: 'what this machine has, what of it works, why the rest does not, and how to mend it',
  examples: [
    ['cqil doctor', 'devices and drivers, each tried'],
    ['cqil doctor models/smollm2', 'also: which device computes which nodes of the model'],
  ],
  options: (yargs) =>
    withDtype(
      yargs.positional('model', { type: 'string', describe: 'a model folder or .onnx file to try, too' }),
    ),
  async run({ model, dtype }, { signal, note }) {
    const { examine, providerUsage } = await import('@cqil/runtime-gpu');
    const examination = await examine({ signal });
    const usage: (ProviderUsage | { provider: string; failed: string })[] = [];
    if (model !== undefined) {
      const { locateModel } = await import('@cqil/planner');
      const { CqilError } = await import('@cqil/core');
      const { onnxFile } = await locateModel(model, { dtype });
      for (const { provider, works } of examination.devices) {
        if (!works) continue;
        note(`running one token of ${model} on ${provider}`);
        try {
          usage.push(await providerUsage(onnxFile, provider, { signal }));
        } catch (error) {
          if (!(error instanceof CqilError) || error.code !== 'PROVIDER_UNAVAILABLE') throw error;
          usage.push({ provider, failed: error.found ?? error.message });
        }
      }
    }
    return {
      document: { ...examination, ...(model === undefined ? {} : { model, usage }) },
      text: [...describe(examination), ...(model === undefined ? [] : describeUsage(usage))].join('\n'),
    };
  },
});

const gigabytes = (bytes: number) => `${(bytes / 2 ** 30).toFixed(1)} GB`;

function describe({ hardware, library, devices, advice }: Examination): string[] {
  const { cpu, cores, cpuLimit, memoryBytes, memoryLimitBytes, instructionSets, gpus } = hardware;
  const lines = [
    `processor     ${cpu}, ${cores} threads${cpuLimit === undefined ? '' : ` (limited to ${cpuLimit})`}${instructionSets.length === 0 ? '' : `; ${instructionSets.join(' ')}`}`,
    `memory        ${gigabytes(memoryBytes)}${memoryLimitBytes === undefined ? '' : ` (limited to ${gigabytes(memoryLimitBytes)})`}`,
    `graphics      ${gpus.length === 0 ? 'none found' : gpus.join(', ')}`,
    library.binding === 'native'
      ? `ONNX Runtime  ${library.version}, native binding (${library.file})`
      : `ONNX Runtime  through onnxruntime-node: ${library.says}${library.mend === undefined ? '' : ` ${library.mend}`}`,
    '',
  ];
  for (const { provider, works, says, mend } of devices) {
    lines.push(`${works ? '✓' : '✗'} ${provider.padEnd(10)} ${says}`);
    if (mend !== undefined) lines.push(`             → ${mend}`);
  }
  if (advice.length > 0) lines.push('', ...advice.map((line) => `! ${line}`));
  return lines;
}

function describeUsage(usage: readonly (ProviderUsage | { provider: string; failed: string })[]): string[] {
  const lines = [''];
  for (const one of usage) {
    if ('failed' in one) {
      lines.push(`${one.provider}: the model does not run on it: ${one.failed}`);
      continue;
    }
    const total = Object.values(one.nodes).reduce((a, b) => a + b, 0);
    const rows = Object.entries(one.nodes).map(([provider, count]) => [
      provider,
      String(count),
      `${((100 * count) / total).toFixed(0)} %`,
      `${(one.kernelMs[provider] ?? 0).toFixed(1)} ms`,
    ]);
    lines.push(
      `One token on ${one.provider}: ${one.copies} copies between devices, ${gigabytes(one.rssBytes)} of memory`,
    );
    lines.push(table([['computed by', 'nodes', 'share', 'in kernels'], ...rows]));
    const left = Object.entries(one.leftToCpu);
    if (left.length > 0)
      lines.push(`left to the CPU: ${left.map(([name, n]) => `${name} × ${n}`).join(', ')}`);
  }
  return lines;
}
