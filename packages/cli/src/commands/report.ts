import { join } from 'node:path';
import { defineCommand } from '../command.js';
import { renderRows } from '../optimize/render.js';
import { oneText } from '../options.js';

export const report = defineCommand({
  command: 'report <folder>',
  describe: 'show what cqil optimize found, and make its page and model card anew',
  examples: [['cqil report models/smollm2-22', 'from the cqil.report.json in it']],
  options: (yargs) =>
    yargs.positional('folder', {
      type: 'string',
      demandOption: true,
      describe: 'a folder that cqil optimize wrote',
      coerce: oneText('folder'),
    }),
  async run({ folder }) {
    const { readReport, REPORT_FILE, writeReport } = await import('@cqil/planner');
    const found = await readReport(join(folder, REPORT_FILE));
    const written = await writeReport(found, folder);
    return {
      document: { ...written, report: found },
      text: `${renderRows(found)}\nwrote ${written.page} and ${written.card}`,
    };
  },
});
