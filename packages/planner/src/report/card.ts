import { sequentialSteps, stringifyPlan } from '@cqil/core';
import type { EvaluationRow, OptimizeReport } from '../optimize/document.js';
import {
  isBeside,
  isBest,
  itemTotals,
  meanTop1,
  planSummary,
  sections,
  stepsSaved,
  verdict,
} from './facts.js';
import {
  count,
  duration,
  excess,
  interval,
  layerRange,
  moment,
  nats,
  perplexity,
  plural,
  round,
  share,
} from './format.js';
import { code, codeBlock, markdownTable, plain, yamlString } from './markdown.js';

/** Says that a README.md is this function's work and may be replaced; the kept original is never marked so. */
export const CARD_MARK = '<!-- Made from cqil.report.json; it is replaced when the model is made again. -->';

export interface ModelCardOptions {
  /** File beside the card that holds the source model's own card. */
  readonly originalCard?: string;
}

/**
 * A report as the card of the model's folder: Markdown with YAML front matter, as hubs read it. It holds the plan, what
 * was lost with its intervals, the baselines, hashes, versions and the command that makes the model again. The same
 * document gives the same bytes.
 */
export function renderModelCard(report: OptimizeReport, options: ModelCardOptions = {}): string {
  const { model } = report;
  const steps = sequentialSteps(report.plan);
  const blocks = [
    frontMatter(report),
    CARD_MARK,
    `# ${plain(model.name)}, ${model.layers} layers in ${steps} steps`,
    `${plain(model.name)} with neighbouring layers computed at the same time: ${planSummary(report)}, so that ${steps} steps follow each other instead of ${model.layers} (${share(stepsSaved(report))} fewer). The method is CQIL, [arXiv 2404.06709](https://arxiv.org/abs/2404.06709). Inputs and outputs of the graph are the original's.`,
    `**${plain(verdict(report))}**`,
    ...evaluation(report),
    ...planBlocks(report),
    ...recovery(report),
    ...origin(report),
    ...(report.notes.length === 0
      ? []
      : ['## Notes and limits', report.notes.map((note) => `- ${plain(note)}`).join('\n')]),
    options.originalCard === undefined
      ? undefined
      : `The source model's own card is [${options.originalCard}](${options.originalCard}).`,
    'The whole report, with charts, is `cqil.report.html`; for programs it is `cqil.report.json`.',
  ];
  return `${blocks.filter((block) => block !== undefined).join('\n\n')}\n`;
}

function frontMatter({ model }: OptimizeReport): string {
  return [
    '---',
    'library_name: transformers.js',
    `base_model: ${yamlString(model.repository ?? model.name)}`,
    ...(model.license === undefined ? [] : [`license: ${yamlString(model.license)}`]),
    'pipeline_tag: text-generation',
    'tags:',
    '- onnx',
    '- cqil',
    '- layer-parallelism',
    '---',
  ].join('\n');
}

function evaluation(report: OptimizeReport): string[] {
  const { kinds, rows } = report.evaluation;
  if (rows.length === 0) return [];
  const hasItems = rows.some((row) => itemTotals(row) !== undefined);
  const hasGeneration = rows.some((row) => row.generation !== undefined);
  const head = [
    'model',
    'recovery',
    'steps',
    'all kinds',
    ...kinds.map((kind) => `${plain(kind)}${isBeside(report, kind) ? ' (not in the mean)' : ''}`),
    'same best token',
    ...(hasGeneration ? ['same tokens generated'] : []),
    ...(hasItems ? ['items right'] : []),
  ];
  const body = sections(report).flatMap((section) =>
    section.rows.map((row) => [
      plain(row.name),
      row.id === 'original' ? '' : row.recovered ? 'yes' : 'no',
      String(row.steps),
      excessCell(report, row, undefined),
      ...kinds.map((kind) => excessCell(report, row, kind)),
      row.id === 'original' ? '' : share(meanTop1(row)),
      ...(hasGeneration ? [generation(row)] : []),
      ...(hasItems ? [items(row)] : []),
    ]),
  );
  const noted = rows.filter((row) => row.note !== undefined);
  return [
    '## What is lost',
    `Excess perplexity (perplexity over the original's, minus 1) on text that nothing was chosen by or fitted to, with 95 % intervals; over all kinds the geometric mean. ★: least of the rows with ${sequentialSteps(report.plan)} steps, once without and once with recovery.`,
    markdownTable(head, body, [0, 1]),
    ...(noted.length === 0
      ? []
      : [noted.map((row) => `- ${plain(row.name)}: ${plain(row.note ?? '')}`).join('\n')]),
    'In full, by kind of text:',
    markdownTable(
      ['model', 'recovery', 'kind', 'tokens', 'perplexity', 'KL, nats a token', 'same best token'],
      sections(report).flatMap((section) => section.rows.flatMap(kindRows)),
      [0, 1, 2],
    ),
  ];
}

function kindRows(row: EvaluationRow): string[][] {
  return row.kinds.map((result) => [
    plain(row.name),
    row.id === 'original' ? '' : row.recovered ? 'yes' : 'no',
    plain(result.kind),
    count(result.tokens),
    withInterval(perplexity(result.perplexity), interval(result.interval, perplexity)),
    withInterval(nats(result.kl), interval(result.klInterval, nats)),
    share(result.top1),
  ]);
}

function excessCell(report: OptimizeReport, row: EvaluationRow, kind: string | undefined): string {
  const result = row.kinds.find((candidate) => candidate.kind === kind);
  if (row.id === 'original')
    return result === undefined ? '0' : `perplexity ${perplexity(result.perplexity)}`;
  if (kind !== undefined && result === undefined) return '–';
  const value = excess(result?.excess ?? row.excess);
  const marked = isBest(report, row, kind) ? `**${value}** ★` : value;
  return withInterval(marked, interval(result?.excessInterval, excess));
}

function withInterval(value: string, range: string): string {
  return range === '' ? value : `${value} (${range})`;
}

function generation({ generation: value }: EvaluationRow): string {
  return value === undefined ? '' : `${Number(value.agreed.toFixed(1))} of ${value.length}`;
}

function items(row: EvaluationRow): string {
  const totals = itemTotals(row);
  return totals === undefined ? '' : `${count(totals.right)} of ${count(totals.total)}`;
}

function planBlocks(report: OptimizeReport): string[] {
  return [
    '## The plan',
    `Asked for: ${plain(report.target)}. A group's layers read the same input; \`bypass\` says how many earlier attention outputs of the group an FFN also reads.`,
    codeBlock(stringifyPlan(report.plan), 'json'),
  ];
}

function recovery({ recovery: steps }: OptimizeReport): string[] {
  if (steps.length === 0) return [];
  const kept = steps.filter((step) => step.kept).length;
  return [
    '## Recovery',
    `${plural(kept, 'refit')} of ${steps.length} kept. Error: squared, on held-out calibration tokens, over the variance of what was to be met.`,
    markdownTable(
      ['layers', 'matrix', 'λ', 'before', 'after', 'outcome'],
      steps.map((step) => [
        layerRange(step.layers),
        code(step.matrix),
        step.lambda === undefined ? '–' : round(step.lambda),
        nats(step.before),
        nats(step.after),
        step.kept ? 'kept' : `refused${step.reason === undefined ? '' : `: ${plain(step.reason)}`}`,
      ]),
      [0, 1, 5],
    ),
  ];
}

function origin(report: OptimizeReport): string[] {
  const { model, result, texts, timings } = report;
  const facts = [
    `- graph: ${code(model.graph)} (${plain(model.dtype)}), SHA-256 ${code(model.sha256)}`,
    ...(result === undefined
      ? []
      : [`- graph written: ${code(result.graph)}, SHA-256 ${code(result.sha256)}`]),
    `- made ${plain(moment(report.created))} by ${[report.tool, ...(report.versions ?? [])].map(({ name, version }) => plain(`${name} ${version}`)).join(', ')}`,
    `- on ${plain(report.machine)}`,
    ...(timings.length === 0
      ? []
      : [
          `- in ${duration(timings.reduce((sum, { seconds }) => sum + seconds, 0))}: ${timings.map(({ step, seconds }) => `${plain(step)} ${duration(seconds)}`).join(', ')}`,
        ]),
  ];
  const sets = [
    ['calibration', texts.calibration],
    ['development', texts.development],
    ['evaluation', texts.evaluation],
  ] as const;
  const rows = sets.flatMap(([name, list]) =>
    list.map((text) => [name, plain(text.kind), plain(text.spec), count(text.tokens), code(text.sha256)]),
  );
  return [
    '## Where it comes from',
    facts.join('\n'),
    ...(rows.length === 0
      ? []
      : [markdownTable(['set', 'kind', 'text', 'tokens', 'SHA-256'], rows, [0, 1, 2, 4])]),
    'Made again by:',
    codeBlock(report.command, 'sh'),
  ];
}
