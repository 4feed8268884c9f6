import prettyBytes from 'pretty-bytes';
import { defineCommand } from '../command.js';
import { oneText, withOut } from '../options.js';

export const importCommand = defineCommand({
  command: 'import <gguf>',
  describe: 'turn a GGUF file (llama.cpp, Ollama) into a model folder that Transformers.js loads',
  examples: [['cqil import model.Q4_1.gguf --out models/mine', 'keep the 4-bit weights as they are']],
  options: (yargs) =>
    withOut(
      yargs.positional('gguf', {
        type: 'string',
        demandOption: true,
        describe: 'a GGUF file; of a split model, its first part',
        coerce: oneText('gguf'),
      }),
      'folder to write; must not exist or be empty',
    ).option('dtype', {
      choices: ['source', 'fp32', 'fp16'] as const,
      default: 'source' as const,
      describe:
        'source: keep block-quantised weights where a fast kernel takes them; fp32, fp16: unpack them',
    }),
  async run({ gguf, out, dtype }, { signal, onProgress }) {
    const { importGguf } = await import('@cqil/planner');
    const result = await importGguf(gguf, out, { dtype, signal, onProgress });
    return {
      document: result,
      text: `wrote ${result.folder}: ${result.dtype}, ${prettyBytes(result.bytes)}, weights ${result.weights}`,
    };
  },
});
