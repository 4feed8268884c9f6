import { createHash } from 'node:crypto';
import { readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import {
  AnatomyError,
  type CandidateGroup,
  type GroupForm,
  latencyLimit,
  optimalPlans,
  type Plan,
  PlanError,
  type PlanGroup,
  type PlanTarget,
  pointForTarget,
  sequentialSteps,
  stepsForLatency,
  stepsForTarget,
  stringifyPlan,
  UsageError,
} from '@cqil/core';
import { DecoderSession, machine } from '@cqil/runtime-gpu';
import { z } from 'zod';
import manifest from '../../package.json' with { type: 'json' };
import { type Anatomy, analyze } from '../anatomy/index.js';
import {
  type CostsResult,
  candidateGroups,
  costTexts,
  measureCosts,
  ReferenceStreams,
  readCosts,
  writeCosts,
} from '../costs/index.js';
import {
  loadTokenizer,
  openTextSets,
  parseTextSpec,
  type TextSet,
  type TextSets,
} from '../evaluate/index.js';
import { linearMaps, replaceMatrices } from '../linear/index.js';
import { type Model, readModel } from '../onnx/index.js';
import { ModelParts } from '../parts/index.js';
import { probe } from '../probe/index.js';
import { readGroupRecoveries, writeGroupRecovery } from '../recover/files.js';
import { type GroupRecovery, type RecoverResult, recover } from '../recover/index.js';
import { unknownsOf } from '../recover/recover.js';
import { REPORT_FILE, readReport, writeReport } from '../report/index.js';
import { mergeObstacles, rewriteBranches, rewriteModel, skipLayers } from '../rewrite/index.js';
import { assertFree, moveIntoPlace } from '../rewrite/rewrite-model.js';
import type { ModelSource } from '../source/index.js';
import { rewriteCheck } from '../verify/index.js';
import { type Baseline, skipBaselines, spansOf, uniformProposals } from './baselines.js';
import { defaultBudget, type MeasuredPlan, PlanMeter, PlanSearch } from './choose.js';
import { type EvaluationRow, evaluationRowSchema, type OptimizeReport } from './document.js';
import { modelHash } from './model-hash.js';
import { type OptimizeOptions, type PredictedLatency, type Settings, settingsOf } from './options.js';
import { Judge, type Judged, type JudgedRow, type RowHead } from './rows.js';
import { guarded, WorkFolder } from './work-folder.js';

/** Under which name the new folder holds what every group costs. */
export const COSTS_FILE = 'cqil.costs.json';

export interface OptimizeResult {
  /** The new model's folder, absolute. */
  readonly root: string;
  readonly report: OptimizeReport;
}

/** A repair that makes perplexity so many times as high does harm; by less, a short text may tell wrongly. */
const HARM = 1.05;

/** A third of the groups of each size goes on to the next part of the text: the best are far apart from the rest. */
const HALVING = { share: 0.25, keep: 0.35 };

const similaritySchema = z.object({
  cosine: z.array(z.array(z.number())),
  blockInfluence: z.array(z.number()),
  hidden: z.number(),
});
const rowSchema = z.object({
  row: evaluationRowSchema,
  continuations: z.array(z.array(z.number())).optional(),
});
const timingSchema = z.object({ step: z.string(), seconds: z.number() });

/** Says that all is done but to give the result its name. */
const DONE = 'done';
const doneSchema = z.object({ report: z.string() });

/**
 * From a model to a planned one, in one go: measures what every group costs, searches the plan for a target, repairs
 * what can be repaired in closed form, writes and checks the model, judges it and baselines by text that nothing before
 * has seen, and reports.
 *
 * All that takes long is kept in `<out>.work` until the end. A run that was stopped at any point and is started again
 * with the same model, texts and options goes on from there and gives the same result. The output folder appears at
 * the end, complete.
 *
 * @throws UsageError `TARGET_UNREACHABLE`, `WORK_OTHER`, `OUTPUT_NOT_EMPTY`, `OUTPUT_IS_SOURCE`, `BESIDE_TEXTS`,
 *   `COSTS_OTHER_MODEL`, `RECOVERY_TEXT_TOO_SHORT` and what `openTextSets` throws; PlanError `PLAN_WIDE_IMPOSSIBLE`; AnatomyError; MetricError `ACTIVATION_NOT_FINITE`;
 *   VerificationError `REWRITE_BROKEN`; EnvironmentError `WRITE_FAILED`; InferenceError; the signal's reason
 */
export async function optimize(
  source: ModelSource,
  out: string,
  options: OptimizeOptions,
): Promise<OptimizeResult> {
  const root = path.resolve(out);
  const force = options.force === true;
  const left = await isLeft(`${root}.work`);
  if (!left) await assertFree(root, source, force);
  const model = await readModel(source.onnxFile);
  const anatomy = analyze(model);
  const settings = settingsOf(options);
  const groupable = await groupableIn(model, anatomy, settings, options);
  const sha256 = await modelHash(model, source.onnxFile, options.signal);
  if (options.costs !== undefined) checkCosts(options.costs, source, sha256, anatomy);
  // Better now than when all groups were measured.
  stepsWanted(options, {
    layers: anatomy.layers.length,
    candidates: (options.costs?.candidates ?? candidateGroups(anatomy, settings)).filter(groupable),
  });
  const texts = await openTexts(source, settings, options);
  const header = {
    version: 1,
    model: { graph: source.onnxRelative, sha256 },
    settings,
    calibration: texts.sets.calibration.sha256,
    development: texts.sets.development.sha256,
  };
  const work = await WorkFolder.open(`${root}.work`, header, options.restart === true);
  const done = await work.read(DONE, doneSchema);
  if (done !== undefined && done.report === (await reportHash(root))) {
    // Stopped between the last two lines of this function.
    await work.remove();
    return { root, report: await readReport(path.join(root, REPORT_FILE)) };
  }
  if (left) await assertFree(root, source, force);
  const run = new Run(source, model, anatomy, sha256, texts, settings, work, options, groupable);
  const report = await run.report();
  const folder = work.path('model');
  await work.write(DONE, { report: await reportHash(folder) });
  await assertFree(root, source, force);
  await guarded(root, () => moveIntoPlace(folder, root));
  await work.remove();
  return { root, report };
}

/**
 * Which groups can be written in the form that is wanted.
 *
 * @throws PlanError `PLAN_WIDE_IMPOSSIBLE`, `PLAN_PACKED_IMPOSSIBLE` where no two neighbours can
 */
async function groupableIn(
  model: Model,
  anatomy: Anatomy,
  settings: Settings,
  options: OptimizeOptions,
): Promise<(group: PlanGroup) => boolean> {
  const { form } = settings;
  if (form === undefined) return () => true;
  const obstacles = await mergeObstacles(model, anatomy, form, options.session);
  const [reason] = obstacles.values();
  if (reason !== undefined && obstacles.size >= anatomy.layers.length - 1) {
    throw new PlanError(
      form === 'wide' ? 'PLAN_WIDE_IMPOSSIBLE' : 'PLAN_PACKED_IMPOSSIBLE',
      form === 'wide'
        ? 'no two layers of this model can be written as one wide layer'
        : 'no two layers of this model have anything that can be made one',
      {
        path: 'form',
        expected: 'neighbours that are alike but for their weights',
        found: reason,
        hint: 'Use the form "branches".',
      },
    );
  }
  return ({ layers, bypass }) =>
    (form === 'packed' || bypass === 'full') && layers.slice(0, -1).every((layer) => !obstacles.has(layer));
}

/** What a target asks of plans, where plans are to be as fast as is predicted. */
function latencyOf({ target, latency }: Pick<OptimizeOptions, 'target' | 'latency'>) {
  if (latency === undefined || !('targetSpeedup' in target)) return undefined;
  return { target, latency, limit: latencyLimit(target, (group: CandidateGroup) => latency.change(group)) };
}

/**
 * Numbers of steps to search plans for, descending; undefined where measured plans alone can tell.
 *
 * @throws UsageError `TARGET_UNREACHABLE`
 */
function stepsWanted(
  options: Pick<OptimizeOptions, 'target' | 'latency'>,
  model: { readonly layers: number; readonly candidates: readonly CandidateGroup[] },
): readonly number[] | undefined {
  const predicted = latencyOf(options);
  if (predicted !== undefined) return stepsForLatency(predicted.target, model, predicted.limit.change);
  const steps = stepsForTarget(options.target, model);
  return steps === undefined ? undefined : [steps];
}

/** A plan whose groups all have one form. */
function inForm(plan: Plan, form: GroupForm): Plan {
  return { ...plan, groups: plan.groups.map(({ layers, bypass }) => ({ layers, bypass, form })) };
}

/** Whether an earlier run was done, so that its result may stand where this one's is to come. */
async function isLeft(work: string): Promise<boolean> {
  return readFile(path.join(work, `${DONE}.json`)).then(
    () => true,
    () => false,
  );
}

async function reportHash(folder: string): Promise<string | undefined> {
  const bytes = await readFile(path.join(folder, REPORT_FILE)).catch(() => undefined);
  return bytes === undefined ? undefined : createHash('sha256').update(bytes).digest('hex');
}

function checkCosts(costs: CostsResult, source: ModelSource, sha256: string, anatomy: Anatomy): void {
  if (costs.model.sha256 === sha256 && costs.layers === anatomy.layers.length) return;
  throw new UsageError('COSTS_OTHER_MODEL', 'The costs are those of another model.', {
    expected: `costs of ${source.onnxFile}`,
    found: `costs of a model of ${costs.layers} layers, sha256 ${costs.model.sha256.slice(0, 12)}…`,
    hint: 'Measure them anew.',
  });
}

interface Texts {
  readonly tokenizer: Awaited<ReturnType<typeof loadTokenizer>>;
  readonly sets: TextSets;
  /** Kinds that count for no mean. */
  readonly beside: readonly string[];
}

async function openTexts(source: ModelSource, settings: Settings, options: OptimizeOptions): Promise<Texts> {
  const tokenizer = await loadTokenizer(source.root);
  const { evaluationTexts, besideTexts } = settings;
  const kindsOf = (specs: readonly string[]) => specs.map((spec) => parseTextSpec(spec).kind);
  const [counted, beside] = [kindsOf(evaluationTexts ?? []), kindsOf(besideTexts)];
  const both = beside.find((kind) => counted.includes(kind));
  if (beside.length > 0 && (counted.length === 0 || both !== undefined)) {
    throw new UsageError(
      'BESIDE_TEXTS',
      'Text that is reported beside the rest needs other text to stand beside.',
      {
        expected: 'text for evaluation of its own, of other kinds',
        found: both === undefined ? 'none' : `"${both}" as both`,
        hint: both === undefined ? 'Give --eval-text, too.' : 'Name the kinds: kind=path.',
      },
    );
  }
  const sets = await openTextSets(tokenizer, {
    texts: settings.texts,
    ...(evaluationTexts === null ? {} : { evaluationTexts: [...evaluationTexts, ...besideTexts] }),
    tokens: settings.tokens,
    window: settings.window,
    seed: settings.seed,
    openModel: () => DecoderSession.open(source.onnxFile, options.session),
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    ...running(options),
  });
  return { tokenizer, sets, beside };
}

function running(options: OptimizeOptions) {
  return {
    ...(options.signal === undefined ? {} : { signal: options.signal }),
    ...(options.onProgress === undefined ? {} : { onProgress: options.onProgress }),
  };
}

interface JudgedModel {
  readonly rows: EvaluationRow[];
  readonly samples: OptimizeReport['samples'];
  readonly set: TextSet;
}

interface Recovered {
  readonly result: RecoverResult;
  readonly id: string;
}

class Run {
  /** Seconds by step, those of earlier runs included. */
  readonly #timings = new Map<string, number>();
  /** What became of baselines that could not be made. */
  readonly #missing: string[] = [];
  /** What the report should tell of the work. */
  readonly #said: string[] = [];

  constructor(
    readonly source: ModelSource,
    readonly model: Model,
    readonly anatomy: Anatomy,
    readonly sha256: string,
    readonly texts: Texts,
    readonly settings: Settings,
    readonly work: WorkFolder,
    readonly options: OptimizeOptions,
    readonly groupable: (group: PlanGroup) => boolean,
  ) {}

  async report(): Promise<OptimizeReport> {
    for (const { step, seconds } of await this.work.lines('timings.jsonl', timingSchema)) {
      this.#timings.set(step, (this.#timings.get(step) ?? 0) + seconds);
    }
    const layers = this.anatomy.layers.length;
    const similarity = await this.#timed('similarity of layer inputs', () => this.#similarity());
    const { costs, front, finalists, baselines } = await this.#choose(similarity);
    const chosen = await this.#timed('trials of repair', () => this.#settle(finalists));
    const recovered = this.settings.recover
      ? await this.#timed('recovery', () => this.#helpfulRecovery(chosen.plan))
      : undefined;
    const plan = this.#described(chosen.plan);
    const written = await this.#timed('writing and checking the model', () => this.#write(plan, recovered));
    const judged = await this.#judge(plan, written.onnxFile, recovered, baselines);
    const report = this.#document({ layers, similarity, costs, front, plan, recovered, judged, written });
    await writeCosts(costs, this.work.path('model', COSTS_FILE));
    await writeReport(report, this.work.path('model'));
    return report;
  }

  async #write(plan: Plan, recovered: Recovered | undefined) {
    const folder = this.work.path('model');
    await guarded(folder, () => rm(folder, { recursive: true, force: true }));
    return rewriteModel(this.source, plan, folder, {
      ...(recovered === undefined ? {} : { recovered: recovered.result.model }),
      ...(this.settings.wide === undefined ? {} : { wide: this.settings.wide }),
      check: rewriteCheck(this.source, this.#session()),
      ...running(this.options),
    });
  }

  async #similarity(): Promise<z.infer<typeof similaritySchema>> {
    return this.work.step('similarity', similaritySchema, async () => {
      const ids = thinned(this.texts.sets.calibration, this.settings.costTokens).kinds.flatMap(
        ({ windows }) => windows,
      );
      const { metrics, hidden } = await probe(this.source, {
        ids,
        window: this.settings.window,
        ...this.#session(),
        ...running(this.options),
      });
      return { cosine: metrics.cosine, blockInfluence: metrics.blockInfluence, hidden };
    });
  }

  async #choose({ blockInfluence, hidden }: z.infer<typeof similaritySchema>) {
    const layers = this.anatomy.layers.length;
    await using parts = await ModelParts.open(this.model, this.anatomy, {
      ...this.#session(),
      ...running(this.options),
    });
    const costs = await this.#timed('cost of every group', () => this.#costs(parts));
    const candidates = costs.candidates.filter((group) => Number.isFinite(group.kl) && this.groupable(group));
    let reference: Promise<ReferenceStreams> | undefined;
    const meter = await PlanMeter.open(
      parts,
      () => {
        const set = thinned(this.texts.sets.development, this.settings.searchTokens);
        reference ??= ReferenceStreams.compute(parts, costTexts(set), running(this.options));
        return reference;
      },
      this.work,
      this.options.signal,
    );
    const search = new PlanSearch(layers, candidates, meter, {
      budget: this.options.budget ?? defaultBudget(this.settings.budget, layers, hidden),
      ...running(this.options),
    });
    const wanted = stepsWanted(this.options, { layers, candidates });
    const predicted = latencyOf(this.options);
    const chosen = await this.#timed('search', async () => {
      await search.overview();
      if (wanted === undefined) return this.#byQuality(search);
      if (predicted !== undefined) return search.bestWithin(wanted, predicted.limit);
      await search.best(wanted[0] as number);
      // Fewer steps may turn out to cost no more.
      return pointForTarget(search.front, this.settings.target, layers);
    });
    const baselines = await this.#baselines(chosen.steps, candidates, meter, blockInfluence);
    const tries = this.settings.recover && this.settings.trials && wanted !== undefined;
    const finalists = tries ? await this.#finalists(chosen, candidates, meter) : [chosen];
    return { costs, front: search.front, finalists, baselines };
  }

  /**
   * The plan that costs least, and others at the same number of steps that may be repaired better: the best uniform one,
   * and the best one by what its groups cost alone that begins no earlier than that. What costs least as
   * it is need not be what can be repaired best.
   */
  async #finalists(
    chosen: MeasuredPlan,
    candidates: CostsResult['candidates'],
    meter: PlanMeter,
  ): Promise<MeasuredPlan[]> {
    const { steps } = chosen;
    const { length } = this.anatomy.layers;
    const uniform = (await meter.measure(uniformProposals(length, steps, candidates).paper)).toSorted(
      (a, b) => a.kl - b.kl,
    )[0];
    if (uniform === undefined) return [chosen];
    const start = uniform.plan.groups[0]?.layers[0] ?? 0;
    const late = optimalPlans({
      layers: length,
      candidates: candidates.filter(({ layers }) => (layers[0] as number) >= start),
      cost: ({ kl }) => kl,
      steps: [steps],
    }).flatMap(({ plans }) => plans.map(({ plan }) => plan));
    const others = [uniform, ...(await meter.measure(late))];
    const seen = new Map([chosen, ...others].map((point) => [stringifyPlan(point.plan), point]));
    const predicted = latencyOf(this.options);
    return [...seen.values()].filter(
      (point) =>
        point === chosen ||
        predicted === undefined ||
        this.#speedup(point.plan) >= predicted.target.targetSpeedup,
    );
  }

  /** Of several plans the one that costs least on development text when it is repaired, on a part of the text. */
  async #settle(finalists: readonly MeasuredPlan[]): Promise<MeasuredPlan> {
    const [first, ...others] = finalists as [MeasuredPlan, ...MeasuredPlan[]];
    if (others.length === 0) return first;
    const tokens = this.#trialTokens(finalists);
    const tried: { readonly point: MeasuredPlan; readonly excess: number }[] = [];
    for (const point of finalists) {
      const { result, id } = await this.#recovery(point.plan, [], tokens);
      tried.push({ point, excess: await this.#developmentExcess(result.model, point.plan, id) });
    }
    const best = tried.reduce((a, b) => (b.excess < a.excess ? b : a));
    const told = tried.map(
      ({ point, excess }) => `${readable(point.plan, [])}: ${(100 * excess).toFixed(1)} %`,
    );
    this.#said.push(
      `Repaired on ${tokens} tokens, before one was chosen, these plans had an excess perplexity on development text of ${told.join('; ')}.`,
    );
    return best.point;
  }

  /** A quarter of the text, where that is still several times the unknowns of the largest fit. */
  #trialTokens(finalists: readonly MeasuredPlan[]): number {
    const maps = linearMaps(this.model, this.anatomy);
    const unknowns = Math.max(...finalists.map(({ plan }) => unknownsOf(maps, plan)));
    const { calibration } = this.settings.tokens;
    return Math.min(calibration, Math.max(Math.ceil(calibration / 4), 4 * unknowns));
  }

  /**
   * The plan of the fewest steps that keeps to a loss of quality, halved in on: fewer steps lose more. With recovery the
   * loss is known only after it, so each trial is recovered, and kept.
   */
  async #byQuality(search: PlanSearch): Promise<MeasuredPlan> {
    const layers = this.anatomy.layers.length;
    const { target, recover: recovers } = this.settings;
    const tried: MeasuredPlan[] = [];
    const attempt = async (steps: number): Promise<MeasuredPlan> => {
      const best = await search.best(steps);
      if (!recovers) return best;
      const { result, id } = await this.#recovery(best.plan);
      return { ...best, excess: await this.#developmentExcess(result.model, best.plan, id) };
    };
    const { maxQualityLoss } = target as Extract<PlanTarget, { maxQualityLoss: number }>;
    const { steps } = search;
    let [low, high] = [0, steps.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      const point = await attempt(steps[middle] as number);
      tried.push(point);
      if (point.excess <= maxQualityLoss) low = middle + 1;
      else high = middle;
    }
    return pointForTarget(recovers ? tried : [...search.front, ...tried], target, layers);
  }

  /** The repair of a plan, but where perplexity on development text is clearly higher with it than without. */
  async #helpfulRecovery(plan: Plan): Promise<Recovered | undefined> {
    const recovered = await this.#recovery(plan);
    if (recovered.result.groups.every(({ replacements }) => replacements.length === 0)) return recovered;
    const { id } = recovered;
    const repaired = await this.#developmentExcess(recovered.result.model, plan, id);
    const plain = await this.#developmentExcess(this.model, plan, `unrepaired-${id}`);
    if (1 + repaired < HARM * (1 + plain)) return recovered;
    const [after, before] = [repaired, plain].map((excess) => `${(100 * excess).toFixed(1)} %`);
    this.#said.push(
      `The repair was left out: on development text the plan has an excess perplexity of ${before} without it and ${after} with it.`,
    );
    return undefined;
  }

  async #developmentExcess(model: Model, plan: Plan, id: string): Promise<number> {
    const { excess } = await this.work.step(
      `development-${id}`,
      z.object({ excess: z.number() }),
      async () => {
        const set = thinned(this.texts.sets.development, this.settings.searchTokens);
        const judge = this.#judgeOf(set, [], false);
        try {
          const head = { id, name: id, steps: sequentialSteps(plan), recovered: true };
          return {
            excess: (await judge.row(head, rewriteBranches(model, plan).model, undefined)).row.excess,
          };
        } finally {
          await judge.dispose();
        }
      },
    );
    return excess;
  }

  async #costs(parts: ModelParts): Promise<CostsResult> {
    if (this.options.costs !== undefined) return this.options.costs;
    const file = this.work.path('costs.json');
    const known = await readCosts(file).catch(() => undefined);
    if (known !== undefined) return known;
    const set = thinned(this.texts.sets.calibration, this.settings.costTokens);
    const journal = this.work.path('costs.journal');
    const costs = await guarded(journal, () =>
      measureCosts(parts, costTexts(set), {
        model: { graph: this.source.onnxRelative, dtype: this.source.dtype, sha256: this.sha256 },
        groupSizes: this.settings.groupSizes,
        bypasses: this.settings.bypasses,
        halving: HALVING,
        journal,
        otherJournal: 'restart',
        ...running(this.options),
      }),
    );
    await writeCosts(costs, file);
    return costs;
  }

  async #baselines(
    steps: number,
    candidates: CostsResult['candidates'],
    meter: PlanMeter,
    blockInfluence: readonly number[],
  ): Promise<Baseline[]> {
    if (this.settings.baselines === 'none') return [];
    const layers = this.anatomy.layers.length;
    const { paper, parallel } = uniformProposals(layers, steps, candidates);
    const best = async (plans: readonly Plan[], id: string, name: string): Promise<Baseline[]> => {
      const measured = (await meter.measure(plans)).toSorted((a, b) => a.kl - b.kl);
      return measured.slice(0, 1).map(({ plan }) => ({ id, name, change: { plan } }));
    };
    return [
      ...skipBaselines(layers, steps, blockInfluence),
      ...(await best(
        parallel,
        'layer-parallelism',
        'Layer Parallelism: pairs with full bypass, the best place',
      )),
      ...(await best(paper, 'uniform', 'CQIL as published: the best uniform P, D, S, E')),
    ];
  }

  /** Recovers a plan, or layers left out; what an earlier run did of it is taken from the work folder. */
  async #recovery(plan: Plan, skipped: readonly number[] = [], tokens?: number): Promise<Recovered> {
    const text = tokens === undefined ? {} : { tokens };
    const header = { plan: stringifyPlan({ ...plan, provenance: {} }), skipped, ...text };
    const id = `${readable(plan, skipped)}-${shortHash(header)}`;
    const folder = this.work.path('recovery', id);
    const known = await readGroupRecoveries(folder, header, linearMaps(this.model, this.anatomy));
    if (known.length === plan.groups.length) {
      const model = known.reduce(
        (before, { replacements }) =>
          replacements.length === 0 ? before : replaceMatrices(before, replacements),
        this.model,
      );
      return { result: { model, plan, groups: known }, id };
    }
    const { calibration, development } = this.texts.sets;
    const result = await recover(this.model, this.anatomy, plan, {
      // In turn from all kinds, so that each batch has a part of each.
      calibration: inTurn(tokens === undefined ? calibration : thinned(calibration, tokens)),
      development: development.kinds.flatMap(({ windows }) => windows),
      skipped,
      known,
      onGroup: (group: GroupRecovery) => {
        const index = plan.groups.findIndex(({ layers }) => layers[0] === group.layers[0]);
        return writeGroupRecovery(folder, index, header, group);
      },
      ...this.#session(),
      ...running(this.options),
    });
    return { result, id };
  }

  async #judge(
    plan: Plan,
    file: string,
    recovery: Recovered | undefined,
    baselines: readonly Baseline[],
  ): Promise<JudgedModel> {
    const steps = sequentialSteps(plan);
    const set = await this.texts.sets.openEvaluation();
    const judge = this.#judgeOf(set, this.texts.beside, this.settings.samples);
    const rows: EvaluationRow[] = [];
    /** @param of what is judged, and all that its row depends on */
    const keep = async (head: RowHead, of: unknown, make: () => Promise<JudgedRow>): Promise<JudgedRow> => {
      const file = `rows/${head.id}-${shortHash({ of, text: set.sha256, beside: this.texts.beside })}`;
      const judged = await this.#timed(`judging: ${head.name}`, () =>
        this.work.step(file, rowSchema as z.ZodType<JudgedRow>, make),
      );
      rows.push(judged.row);
      return judged;
    };
    try {
      const head = { id: 'original', name: 'Original', steps: plan.layers, recovered: false };
      const original = await keep(head, 'original', () => judge.original(head));
      const row = (of: RowHead, change: Baseline['change'], judged: () => Promise<Judged> | Judged) =>
        keep(of, change, async () => judge.row(of, await judged(), original.continuations));
      for (const baseline of baselines) await this.#judgeBaseline(baseline, steps, rows, row);
      const ours = { id: 'ours', name: 'CQIL, searched', steps, recovered: false };
      const change = { plan: { ...plan, provenance: {} } };
      // Merged matrices may have been rounded, so what was written is what is judged.
      const written = recovery === undefined && this.settings.form !== undefined;
      const branches = inForm(plan, 'branches');
      let last = await row(ours, change, () =>
        written ? file : rewriteBranches(this.model, branches).model,
      );
      if (recovery !== undefined) {
        const repaired = { ...ours, id: 'ours-recovered', recovered: true };
        last = await row(repaired, change, () => file);
      }
      return { rows, samples: judge.samples(original.continuations, last.continuations), set };
    } finally {
      await judge.dispose();
    }
  }

  /** A baseline's row, and that of its recovered form where that is wanted. One that cannot be made is noted. */
  async #judgeBaseline(
    { id, name, change }: Baseline,
    steps: number,
    rows: EvaluationRow[],
    judge: (
      of: RowHead,
      change: Baseline['change'],
      judged: () => Promise<Judged> | Judged,
    ) => Promise<unknown>,
  ): Promise<void> {
    const apply = (model: Model) =>
      'plan' in change ? rewriteBranches(model, change.plan).model : skipLayers(model, change.skip);
    const head = { id, name, steps, recovered: false, samples: false };
    try {
      await judge(head, change, () => apply(this.model));
    } catch (error) {
      if (!(error instanceof AnatomyError)) throw error;
      this.#missing.push(`${name}: not to be had of this graph. ${error.message.split('\n')[0]}`);
      return;
    }
    if (!this.settings.recover || this.settings.baselines !== 'recovered') return;
    const [shape, skipped] =
      'plan' in change ? [change.plan, []] : [spansOf(this.anatomy.layers.length, change.skip), change.skip];
    try {
      await judge({ ...head, id: `${id}-recovered`, recovered: true }, change, async () =>
        apply((await this.#recovery(shape, skipped)).result.model),
      );
    } catch (error) {
      if (!(error instanceof UsageError && error.code === 'RECOVERY_TEXT_TOO_SHORT')) throw error;
      const [text] = error.message.split('\n');
      const note = `Not repaired: ${text} Expected: ${error.expected}; found: ${error.found}.`;
      rows.push({ ...(rows.pop() as EvaluationRow), note });
    }
  }

  #judgeOf(set: TextSet, beside: readonly string[], samples: boolean): Judge {
    return new Judge(this.source.onnxFile, {
      tokenizer: this.texts.tokenizer,
      set,
      beside,
      samples,
      ...this.#session(),
      ...running(this.options),
    });
  }

  #described(plan: Plan): Plan {
    return {
      ...(this.settings.form === undefined ? plan : inForm(plan, this.settings.form)),
      provenance: {
        tool: 'cqil optimize',
        method: 'measured search',
        target: { ...this.settings.target },
        modelHash: this.sha256,
      },
    };
  }

  #document(parts: {
    layers: number;
    similarity: z.infer<typeof similaritySchema>;
    costs: CostsResult;
    front: readonly MeasuredPlan[];
    plan: Plan;
    recovered: Recovered | undefined;
    judged: JudgedModel;
    written: Awaited<ReturnType<typeof rewriteModel>>;
  }): OptimizeReport {
    const { costs, front, plan, recovered, judged, similarity, written } = parts;
    const { cpu, cores, memoryBytes, platform, arch, node, onnxruntime } = machine();
    const used = (set: TextSet) =>
      set.texts.map(({ kind, spec, sha256, tokens }) => ({ kind, spec, sha256, tokens }));
    return {
      version: 1,
      created: new Date().toISOString(),
      tool: { name: manifest.name, version: manifest.version },
      versions: [
        { name: 'Node.js', version: node },
        { name: 'ONNX Runtime', version: onnxruntime },
      ],
      command: this.options.command ?? `optimize(${JSON.stringify(this.settings)})`,
      machine: `${cpu}, ${cores} cores, ${Math.round(memoryBytes / 2 ** 30)} GiB, ${platform} ${arch}`,
      timings: [...this.#timings].map(([step, seconds]) => ({ step, seconds })),
      model: {
        name: path.basename(this.source.root),
        graph: this.source.onnxRelative,
        dtype: this.source.dtype,
        sha256: this.sha256,
        layers: parts.layers,
        hidden: similarity.hidden,
      },
      texts: {
        calibration: used(this.texts.sets.calibration),
        development: used(this.texts.sets.development),
        evaluation: used(judged.set),
      },
      plan,
      target: describeTarget(this.settings.target, this.options.latency),
      similarity: similarity.cosine,
      candidates: costs.candidates.map(({ layers, bypass, kl, crossEntropy }) => ({
        layers,
        bypass,
        kl,
        crossEntropy,
      })),
      front: front.map(({ steps, plan: of, kl, excess }) => ({ steps, plan: of, kl, excess })),
      recovery: (recovered?.result.groups ?? []).flatMap((group) =>
        group.steps.map((step) => ({ ...step, layers: [...step.layers] })),
      ),
      evaluation: {
        kinds: judged.set.kinds.map(({ kind }) => kind),
        rows: judged.rows,
      },
      samples: judged.samples,
      notes: [...written.notes, ...this.#said, ...this.#missing, ...this.#notes(plan)],
    };
  }

  #notes(plan: Plan): string[] {
    const self = this.settings.texts.some((text) => parseTextSpec(text).spec === 'self');
    return [
      ...(self
        ? [
            'The model wrote (a part of) the text itself. Text of the kind it will be used for tells more, and repairs more.',
          ]
        : []),
      this.#latencyNote(plan),
    ];
  }

  #latencyNote(plan: Plan): string {
    const { latency } = this.options;
    if (latency === undefined) {
      return 'A target speed-up is read as layers over steps; what a device makes of fewer steps is to be measured on it.';
    }
    return `Predicted to be ${this.#speedup(plan).toFixed(2)} times as fast as the model as it is, a token at a time, by ${latency.described}.`;
  }

  /** As predicted, of a plan in the form that is written. */
  #speedup(plan: Plan): number {
    const latency = this.options.latency as PredictedLatency;
    return 1 / latency.of(inForm(plan, this.settings.form ?? 'branches'));
  }

  #session() {
    return this.options.session === undefined ? {} : { session: this.options.session };
  }

  /** Times a step. What a run that was stopped in the middle of it took counts, too, unless it was killed. */
  async #timed<T>(step: string, work: () => Promise<T>): Promise<T> {
    const start = performance.now();
    const keep = async () => {
      const seconds = (performance.now() - start) / 1000;
      this.#timings.set(step, (this.#timings.get(step) ?? 0) + seconds);
      await this.work.append('timings.jsonl', { step, seconds });
    };
    let value: T;
    try {
      value = await work();
    } catch (error) {
      // What went wrong is to be told, not that this could not be written down.
      await keep().catch(() => undefined);
      throw error;
    }
    await keep();
    return value;
  }
}

/** A set with fewer windows of each kind, spread over what there is. */
export function thinned(set: TextSet, tokens: number): TextSet {
  const each = Math.max(1, Math.ceil(tokens / set.kinds.length / set.window));
  const kinds = set.kinds.map(({ kind, windows }) => {
    const count = Math.min(each, windows.length);
    const spread = Array.from(
      { length: count },
      (_, i) => windows[Math.floor((i * windows.length) / count)]!,
    );
    return { kind, windows: spread };
  });
  return { ...set, kinds };
}

function inTurn({ kinds }: TextSet): (readonly number[])[] {
  const longest = Math.max(...kinds.map(({ windows }) => windows.length));
  return Array.from({ length: longest }, (_, i) =>
    kinds.flatMap(({ windows }) => windows.slice(i, i + 1)),
  ).flat();
}

/** For people who look into the work folder; hashes tell plans apart. */
function readable({ groups }: Plan, skipped: readonly number[]): string {
  const spans = groups.map(({ layers, bypass }) => `${layers[0]}-${layers.at(-1)}d${bypass}`);
  return `${skipped.length > 0 ? 'skip_' : ''}${spans.join('_')}`.slice(0, 100);
}

function shortHash(value: unknown): string {
  return createHash('sha256').update(JSON.stringify(value)).digest('hex').slice(0, 12);
}

function describeTarget(target: PlanTarget, latency: PredictedLatency | undefined): string {
  if ('maxSteps' in target) return `at most ${target.maxSteps} sequential steps`;
  if ('targetSpeedup' in target) {
    const by = latency === undefined ? 'as layers over steps' : `predicted by ${latency.described}`;
    return `${target.targetSpeedup} times as fast, ${by}`;
  }
  return `at most ${(100 * target.maxQualityLoss).toPrecision(3)} % excess perplexity`;
}
