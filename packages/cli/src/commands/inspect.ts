import { defineCommand } from '../command.js';
import { describeModel } from '../inspect/describe.js';
import { renderDescription } from '../inspect/render.js';
import { modelType, openModel } from '../model.js';
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
    const { dataTypeName } = await import('@cqil/planner');
    const opened = await openModel(path, dtype);
    const plan = opened.model.metadata('cqil.plan');
    const document = describeModel({
      ...opened,
      type: await modelType(opened.source),
      plan: plan === undefined ? undefined : JSON.parse(plan),
      typeName: dataTypeName,
    });
    return { document, text: renderDescription(document) };
  },
});
