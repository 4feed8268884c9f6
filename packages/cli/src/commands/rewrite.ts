import { defineCommand } from '../command.js';
import { readText } from '../model.js';
import { oneText, wideOptions, withDtype, withModel, withOut, withWide } from '../options.js';
import { describePlan } from '../plan.js';
import { renderChecks } from '../verify/render.js';

export const rewrite = defineCommand({
  command: 'rewrite <model>',
  describe: 'write the model anew, its groups of layers side by side',
  examples: [
    ['cqil rewrite models/smollm2 --plan plan.json --out models/smollm2-cqil', 'checked before it is kept'],
  ],
  options: (yargs) =>
    withWide(withOut(withDtype(withModel(yargs)), 'folder to write; must not exist or be empty'))
      .option('plan', {
        type: 'string',
        demandOption: true,
        describe: 'a plan, JSON',
        coerce: oneText('plan'),
      })
      .option('verify', {
        type: 'boolean',
        default: true,
        describe:
          'run the result and compare it with the method; --no-verify checks structure and shapes only',
      })
      .option('force', {
        type: 'boolean',
        default: false,
        describe: 'replace a folder that an earlier rewrite left',
      }),
  async run({ model, dtype, plan: planFile, out, verify, force, kv, storage }, { signal, onProgress }) {
    const [core, planner] = await Promise.all([import('@cqil/core'), import('@cqil/planner')]);
    const source = await planner.locateModel(model, { dtype });
    const plan = core.parsePlan(await readText(planFile));
    let report: import('@cqil/planner').VerifyReport | undefined;
    const result = await planner.rewriteModel(source, plan, out, {
      force,
      wide: wideOptions({ kv, storage }),
      signal,
      onProgress,
      check: async (rewritten) => {
        const original = await planner.readModel(source.onnxFile);
        report = await planner.verifyRewritten(original, rewritten, { parity: verify, signal, onProgress });
        return planner.failureOf(report);
      },
    });
    const lines = [
      `wrote ${result.root}: ${describePlan(plan, core.sequentialSteps(plan))}`,
      ...result.notes,
    ];
    if (report !== undefined) lines.push(renderChecks(report.checks));
    return { document: { ...result, plan, checks: report?.checks ?? [] }, text: lines.join('\n') };
  },
});
