import { defineCommand } from '../command.js';
import { describeModel } from '../inspect/describe.js';
import { renderDescription } from '../inspect/render.js';
import { modelType, readNamedModel } from '../model.js';
import { withDtype, withModel } from '../options.js';

export const inspect = defineCommand({
  command: 'inspect <model>',
  describe: 'show architecture, layers, operators, sizes, what can be grouped and why not',
  examples: [
    ['cqil inspect models/smollm2', 'for people'],
    ['cqil inspect models/smollm2 --json', 'for programs'],
  ],
  options: (yargs) => withDtype(withModel(yargs)),
  async run({ model: path, dtype }) {
    const { analyze, dataTypeName } = await import('@cqil/planner');
    const { source, model, plan } = await readNamedModel(path, dtype);
    const document = describeModel({
      source,
      model,
      anatomy: plan === undefined ? analyze(model) : undefined,
      type: await modelType(source),
      plan,
      typeName: dataTypeName,
    });
    return { document, text: renderDescription(document) };
  },
});
