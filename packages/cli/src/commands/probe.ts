import { resolve } from 'node:path';
import { defineCommand } from '../command.js';
import { manyTexts, wholeNumber, withDtype, withModel, withOut } from '../options.js';

export const probe = defineCommand({
  command: 'probe <model>',
  describe: 'measure how alike the inputs of the layers are, on calibration text',
  examples: [
    ['cqil probe models/smollm2 --text notes.txt code.txt --out probe.json', 'on files of your own'],
    ['cqil probe models/smollm2 --out probe.json', 'on text that the model writes itself'],
  ],
  options: (yargs) =>
    withOut(withDtype(withModel(yargs)), 'the measurements to write, a JSON file')
      .option('text', {
        type: 'string',
        array: true,
        describe: 'text files, or npm:<package> for installed data sets; default: text that the model writes',
        coerce: manyTexts('text'),
      })
      .option('tokens', {
        type: 'string',
        describe: 'about how many tokens to run (default 4096)',
        coerce: wholeNumber('tokens', 2),
      })
      .option('block-dependency', {
        type: 'boolean',
        default: false,
        describe: "also measure each layer's dependency on the four before it; takes several times as long",
      }),
  async run({ model, dtype, out, text, tokens, blockDependency }, { signal, onProgress }) {
    const { locateModel, probe: measure, writeProbe } = await import('@cqil/planner');
    const source = await locateModel(model, { dtype });
    const result = await measure(source, {
      ...(text === undefined ? {} : { texts: text }),
      ...(tokens === undefined ? {} : { tokens }),
      ...(blockDependency ? { blockDependency: {} } : {}),
      signal,
      onProgress,
    });
    await writeProbe(result, resolve(out));
    const { layers, metrics } = result;
    const neighbours = Array.from({ length: layers - 1 }, (_, i) => metrics.cosine[i]?.[i + 1] ?? Number.NaN);
    const line = neighbours.map((value) => value.toFixed(2)).join(' ');
    return {
      document: result,
      text: `wrote ${out}: ${result.tokens} tokens, ${layers} layers\ncosine of neighbouring layer inputs: ${line}`,
    };
  },
});
