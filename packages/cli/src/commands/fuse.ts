import type { FusePassName } from '@cqil/planner';
import { defineCommand } from '../command.js';
import { renderPasses, renderRefusals } from '../fuse/render.js';
import { manyTexts, refusal, withDtype, withModel, withOut } from '../options.js';

const BITS = [4, 8] as const;
const PADDING = ['left', 'none'] as const;

export const fuse = defineCommand({
  command: 'fuse <model>',
  describe: "write the model anew with ONNX Runtime's fused operators, the same up to rounding",
  examples: [
    ['cqil fuse models/llama --out models/llama-fused', 'checked before it is kept'],
    ['cqil fuse models/llama --out models/llama-4bit --bits 4', 'with its matrices in 4-bit blocks'],
  ],
  options: (yargs) =>
    withOut(withDtype(withModel(yargs)), 'folder to write; must not exist or be empty')
      .option('bits', {
        describe: 'store the matrices in blocks of 4 or 8 bits',
        coerce: (value: unknown) => oneOf('bits', BITS, value === undefined ? undefined : Number(value)),
      })
      .option('padding', {
        describe: 'left: batches padded on the left are right, not for CUDA; none: for CUDA',
        default: 'left',
        coerce: (value: unknown) => oneOf('padding', PADDING, value) ?? 'left',
      })
      .option('without', {
        describe: 'passes to leave out, by the names that are shown',
        array: true,
        coerce: manyTexts('without'),
      })
      .option('explain', {
        type: 'boolean',
        default: false,
        describe: 'say what was left as it is, and why',
      })
      .option('verify', {
        type: 'boolean',
        default: true,
        describe: 'run both graphs on the same tokens; --no-verify checks structure only',
      })
      .option('force', {
        type: 'boolean',
        default: false,
        describe: 'replace a folder that an earlier fuse left',
      }),
  async run({ model, dtype, out, bits, padding, without, explain, verify, force }, { signal, onProgress }) {
    const planner = await import('@cqil/planner');
    const leftOut = (without ?? []).map(
      (name) => oneOf('without', planner.FUSE_PASSES, name) as FusePassName,
    );
    const source = await planner.locateModel(model, { dtype });
    const result = await planner.fuseModel(source, out, {
      padding,
      without: leftOut,
      check: verify,
      force,
      signal,
      onProgress,
      ...(bits === undefined ? {} : { bits }),
    });
    const { nodes, passes, notes, checks } = result;
    const lines = [
      `wrote ${result.root}: ${nodes.before} nodes, now ${nodes.after}`,
      renderPasses(passes),
      ...(explain ? [renderRefusals(passes)] : []),
      ...checks.map(({ detail }) => `checked: ${detail}`),
      ...notes,
    ];
    return { document: result, text: lines.join('\n') };
  },
});

/** `value` as one of a few; `undefined` where it was not given. */
function oneOf<T extends string | number>(
  option: string,
  values: readonly T[],
  value: unknown,
): T | undefined {
  if (value === undefined) return undefined;
  const found = values.find((candidate) => candidate === value);
  if (found !== undefined) return found;
  throw refusal('OPTION_INVALID', `--${option} has no such value.`, {
    expected: values.join(', '),
    found: JSON.stringify(value) ?? 'nothing',
  });
}
