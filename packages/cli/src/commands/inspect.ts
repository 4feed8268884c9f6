import { defineCommand } from '../command.js';
import { renderPasses, renderRefusals } from '../fuse/render.js';
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
    ['cqil inspect models/smollm2 --explain', 'also what `cqil fuse` would fuse, and why not the rest'],
  ],
  options: (yargs) =>
    withDtype(withModel(yargs)).option('explain', {
      type: 'boolean',
      default: false,
      describe: 'say what each pass of `fuse` would do, and why it would leave the rest',
    }),
  async run({ model: path, dtype, explain }, { signal, onProgress }) {
    const planner = await import('@cqil/planner');
    const { analyze, dataTypeName } = planner;
    const { source, model, plan } = await readNamedModel(path, dtype);
    const document = describeModel({
      source,
      model,
      anatomy: plan === undefined ? analyze(model) : undefined,
      type: await modelType(source),
      plan,
      typeName: dataTypeName,
    });
    if (!explain) return { document, text: renderDescription(document) };
    const { model: fused, passes } = await planner.fuse(model, { signal, onProgress });
    const nodes = { before: model.graph.nodes.length, after: fused.graph.nodes.length };
    const heading = `\nFused, it would have ${nodes.after} nodes in the place of ${nodes.before}:`;
    const text = [renderDescription(document), heading, renderPasses(passes), renderRefusals(passes)].join(
      '\n',
    );
    return { document: { ...document, fuse: { nodes, passes } }, text };
  },
});
