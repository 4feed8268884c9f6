import path from 'node:path';
import {
  type Plan,
  type PlanTarget,
  pointForTarget,
  sequentialSteps,
  stringifyPlan,
  UsageError,
} from '@cqil/core';
import { DecoderSession, machine } from '@cqil/runtime-gpu';
import { z } from 'zod';
import manifest from '../../package.json' with { type: 'json' };
import { type Anatomy, analyze } from '../anatomy/index.js';
import {
  type CostsResult,
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
import { linearMaps } from '../linear/index.js';
import { type Model, readModel } from '../onnx/index.js';
import { ModelParts } from '../parts/index.js';
import { probe } from '../probe/index.js';
import { readGroupRecoveries, writeGroupRecovery } from '../recover/files.js';
import { type GroupRecovery, type RecoverResult, recover } from '../recover/index.js';
import { writeReport } from '../report/index.js';
import { rewriteBranches, rewriteModel, skipLayers } from '../rewrite/index.js';
import { assertFree, moveIntoPlace } from '../rewrite/rewrite-model.js';
import type { ModelSource } from '../source/index.js';
import { rewriteCheck } from '../verify/index.js';
import { type Baseline, skipBaselines, spansOf, stepsOf, uniformProposals } from './baselines.js';
import { chooseFront, type MeasuredPlan, PlanMeter } from './choose.js';
import { type EvaluationRow, evaluationRowSchema, type OptimizeReport } from './document.js';
import { modelHash } from './model-hash.js';
import { type OptimizeOptions, type Settings, settingsOf } from './options.js';
import { Judge, type Judged, type JudgedRow, type RowHead } from './rows.js';
import { WorkFolder } from './work-folder.js';

export interface OptimizeResult {
  /** The new model's folder, absolute. */
  readonly root: string;
  readonly report: OptimizeReport;
}

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
 *   `RECOVERY_TEXT_TOO_SHORT` and what `openTextSets` throws; AnatomyError; MetricError `ACTIVATION_NOT_FINITE`;
 *   VerificationError `REWRITE_BROKEN`; EnvironmentError `WRITE_FAILED`; InferenceError; the signal's reason
 */
export async function optimize(
  source: ModelSource,
  out: string,
  options: OptimizeOptions,
): Promise<OptimizeResult> {
  const root = path.resolve(out);
  await assertFree(root, source, options.force === true);
  const model = await readModel(source.onnxFile);
  const anatomy = analyze(model);
  const settings = settingsOf(options);
  const texts = await openTexts(source, settings, options);
  const sha256 = await modelHash(model, source.onnxFile, options.signal);
  const header = {
    version: 1,
    model: { graph: source.onnxRelative, sha256 },
    settings,
    calibration: texts.sets.calibration.sha256,
    development: texts.sets.development.sha256,
  };
  const work = await WorkFolder.open(`${root}.work`, header, options.restart === true);
  const run = new Run(source, root, model, anatomy, sha256, texts, settings, work, options);
  const report = await run.report();
  await moveIntoPlace(work.path('model'), root);
  await work.remove();
  return { root, report };
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
  if (besideTexts.length > 0 && evaluationTexts === null) {
    throw new UsageError(
      'BESIDE_TEXTS',
      'Text that is reported beside the rest needs other text to stand beside.',
      {
        expected: 'text for evaluation of its own',
        found: 'none',
        hint: 'Give --eval-text, too.',
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
  const counted = new Set((evaluationTexts ?? []).map((spec) => parseTextSpec(spec).kind));
  const beside = besideTexts.map((spec) => parseTextSpec(spec).kind).filter((kind) => !counted.has(kind));
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
  readonly #timings: { step: string; seconds: number }[] = [];

  constructor(
    readonly source: ModelSource,
    readonly root: string,
    readonly model: Model,
    readonly anatomy: Anatomy,
    readonly sha256: string,
    readonly texts: Texts,
    readonly settings: Settings,
    readonly work: WorkFolder,
    readonly options: OptimizeOptions,
  ) {}

  async report(): Promise<OptimizeReport> {
    this.#timings.push(...(await this.work.lines('timings.jsonl', timingSchema)));
    const layers = this.anatomy.layers.length;
    const similarity = await this.#timed('similarity of layer inputs', () => this.#similarity());
    const { costs, front, chosen, baselines } = await this.#choose(similarity.blockInfluence);
    const recovered = this.settings.recover ? await this.#recovered(chosen.plan) : undefined;
    const plan = this.#described(recovered?.plan ?? chosen.plan);
    const written = await this.#timed('writing and checking the model', () =>
      rewriteModel(this.source, plan, this.work.path('model'), {
        force: true,
        ...(recovered === undefined ? {} : { recovered: recovered.recovery.result.model }),
        check: rewriteCheck(this.source, this.#session()),
        ...running(this.options),
      }),
    );
    const judged = await this.#judge(
      plan,
      written.onnxFile,
      recovered?.recovery,
      baselines(sequentialSteps(plan)),
    );
    const report = this.#document({ layers, similarity, costs, front, plan, recovered, judged, written });
    await writeReport(report, this.work.path('model'));
    return report;
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

  async #choose(blockInfluence: readonly number[]) {
    const layers = this.anatomy.layers.length;
    await using parts = await ModelParts.open(this.model, this.anatomy, {
      ...this.#session(),
      ...running(this.options),
    });
    const costs = await this.#timed('cost of every group', () => this.#costs(parts));
    const candidates = costs.candidates.filter(({ kl }) => Number.isFinite(kl));
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
    const { front, wanted } = await this.#timed('search', () =>
      chooseFront(layers, candidates, meter, {
        target: this.settings.target,
        budget: this.settings.budget,
        ...running(this.options),
      }),
    );
    const chosen =
      wanted === undefined
        ? await this.#byQuality(front)
        : pointForTarget(front, this.settings.target, layers);
    const baselines = await this.#baselines(sequentialSteps(chosen.plan), candidates, meter, blockInfluence);
    return {
      costs,
      front,
      chosen,
      // Recovery may settle for another number of steps; its baselines are those of that number.
      baselines: (steps: number) => baselines.filter((baseline) => stepsOf(baseline, layers) === steps),
    };
  }

  /**
   * The plan of the fewest steps that keeps to a loss of quality. With recovery that is known only after it: what the
   * plans promise is taken as a first guess and halved in on, each trial kept.
   */
  async #byQuality(front: readonly MeasuredPlan[]): Promise<MeasuredPlan> {
    const layers = this.anatomy.layers.length;
    const { target } = this.settings;
    if (!this.settings.recover) return pointForTarget(front, target, layers);
    const tried = new Map<MeasuredPlan, number>();
    const excessOf = async (point: MeasuredPlan) => {
      const known = tried.get(point);
      if (known !== undefined) return known;
      const recovery = await this.#recovery(point.plan);
      const excess = await this.#developmentExcess(recovery.result.model, point.plan, recovery.id);
      tried.set(point, excess);
      return excess;
    };
    const limit = (target as Extract<PlanTarget, { maxQualityLoss: number }>).maxQualityLoss;
    let [low, high] = [0, front.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((await excessOf(front[middle] as MeasuredPlan)) <= limit) low = middle + 1;
      else high = middle;
    }
    const points = [...tried].map(([point, excess]) => ({ ...point, excess }));
    return pointForTarget(points, target, layers);
  }

  async #developmentExcess(model: Model, plan: Plan, id: string): Promise<number> {
    const { excess } = await this.work.step(
      `development-${id}`,
      z.object({ excess: z.number() }),
      async () => {
        const set = thinned(this.texts.sets.development, this.settings.searchTokens);
        const judge = this.#judgeOf(set, false);
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
    const file = this.work.path('costs.json');
    const known = await readCosts(file).catch(() => undefined);
    if (known !== undefined) return known;
    const set = thinned(this.texts.sets.calibration, this.settings.costTokens);
    const costs = await measureCosts(parts, costTexts(set), {
      model: { graph: this.source.onnxRelative, dtype: this.source.dtype, sha256: this.sha256 },
      groupSizes: this.settings.groupSizes,
      journal: this.work.path('costs.journal'),
      otherJournal: 'restart',
      ...running(this.options),
    });
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

  async #recovered(plan: Plan): Promise<{ plan: Plan; recovery: Recovered }> {
    return { plan, recovery: await this.#timed('recovery', () => this.#recovery(plan)) };
  }

  /** Recovers a plan, or layers left out; what an earlier run did of it is taken from the work folder. */
  async #recovery(plan: Plan, skipped: readonly number[] = []): Promise<Recovered> {
    const id = idOf(plan, skipped);
    const folder = this.work.path('recovery', id);
    const header = { plan: stringifyPlan({ ...plan, provenance: {} }), skipped };
    const { calibration, development } = this.texts.sets;
    let index = 0;
    const known = await readGroupRecoveries(folder, header, linearMaps(this.model, this.anatomy));
    const windows = (set: TextSet) => set.kinds.flatMap((kind) => kind.windows);
    const result = await recover(this.model, this.anatomy, plan, {
      // In turn from all kinds, so that each batch has a part of each.
      calibration: inTurn(calibration),
      development: windows(development),
      skipped,
      known,
      onGroup: (group: GroupRecovery) => {
        index = plan.groups.findIndex(({ layers }) => layers[0] === group.layers[0]);
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
    const judge = this.#judgeOf(set, this.settings.samples);
    const rows: EvaluationRow[] = [];
    const keep = async (head: RowHead, make: () => Promise<JudgedRow>): Promise<JudgedRow> => {
      const judged = await this.#timed(`judging: ${head.name}`, () =>
        this.work.step(`rows/${head.id}`, rowSchema as z.ZodType<JudgedRow>, make),
      );
      rows.push(judged.row);
      return judged;
    };
    try {
      const head = { id: 'original', name: 'Original', steps: plan.layers, recovered: false };
      const original = await keep(head, () => judge.original(head));
      const row = (of: RowHead, judged: () => Promise<Judged> | Judged) =>
        keep(of, async () => judge.row(of, await judged(), original.continuations));
      const withRecovery = this.settings.recover && this.settings.baselines === 'recovered';
      for (const baseline of baselines) {
        const { id, name, change } = baseline;
        const apply = (model: Model) =>
          'plan' in change ? rewriteBranches(model, change.plan).model : skipLayers(model, change.skip);
        await row({ id, name, steps, recovered: false, samples: false }, () => apply(this.model));
        if (!withRecovery) continue;
        await row({ id: `${id}-recovered`, name, steps, recovered: true, samples: false }, async () => {
          const [shape, skipped] =
            'plan' in change
              ? [change.plan, []]
              : [spansOf(plan.layers, change.skip), skippedIn(change.skip)];
          return apply((await this.#recovery(shape, skipped)).result.model);
        });
      }
      const ours = { id: 'ours', name: 'CQIL, searched', steps, recovered: false };
      let last = await row(ours, () => rewriteBranches(this.model, plan).model);
      if (recovery !== undefined) {
        last = await row(
          { ...ours, id: 'ours-recovered', name: 'CQIL, searched', recovered: true },
          () => file,
        );
      }
      return { rows, samples: judge.samples(original.continuations, last.continuations), set };
    } finally {
      await judge.dispose();
    }
  }

  #judgeOf(set: TextSet, samples: boolean): Judge {
    return new Judge(this.source.onnxFile, {
      tokenizer: this.texts.tokenizer,
      set,
      beside: this.texts.beside,
      samples,
      ...this.#session(),
      ...running(this.options),
    });
  }

  #described(plan: Plan): Plan {
    return {
      ...plan,
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
    recovered: { recovery: Recovered } | undefined;
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
      timings: [...this.#timings],
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
      target: describeTarget(this.settings.target),
      similarity: similarity.cosine,
      candidates: costs.candidates.map(({ layers, bypass, kl, crossEntropy }) => ({
        layers,
        bypass,
        kl,
        crossEntropy,
      })),
      front: front.map(({ steps, plan: of, kl, excess }) => ({ steps, plan: of, kl, excess })),
      recovery: (recovered?.recovery.result.groups ?? []).flatMap((group) =>
        group.steps.map((step) => ({ ...step, layers: [...step.layers] })),
      ),
      evaluation: {
        kinds: judged.set.kinds.map(({ kind }) => kind),
        rows: judged.rows,
      },
      samples: judged.samples,
      notes: [...written.notes, ...this.#notes()],
    };
  }

  #notes(): string[] {
    const self = this.settings.texts.includes('self');
    return [
      ...(self
        ? [
            'The model wrote (a part of) the text itself. Text of the kind it will be used for tells more, and repairs more.',
          ]
        : []),
      'A target speed-up is read as layers over steps; what a device makes of fewer steps is to be measured on it.',
    ];
  }

  #session() {
    return this.options.session === undefined ? {} : { session: this.options.session };
  }

  /** Times a step; one that an earlier run did keeps the time it took then. */
  async #timed<T>(step: string, work: () => Promise<T>): Promise<T> {
    const start = performance.now();
    const value = await work();
    const seconds = (performance.now() - start) / 1000;
    const known = this.#timings.find((timing) => timing.step === step);
    if (known === undefined) {
      this.#timings.push({ step, seconds });
      await this.work.append('timings.jsonl', { step, seconds });
    } else if (seconds > known.seconds) known.seconds = seconds;
    return value;
  }
}

/** A set with fewer windows of each kind, spread over what there is. */
export function thinned(set: TextSet, tokens: number): TextSet {
  const each = Math.max(1, Math.floor(tokens / set.kinds.length / set.window));
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

/** Skipped layers that stand behind one that stays; a skipped beginning has nothing to make up for it. */
function skippedIn(skip: readonly number[]): number[] {
  return skip.filter((layer) => layer > 0);
}

function idOf(plan: Plan, skipped: readonly number[]): string {
  const groups = plan.groups.map(
    ({ layers, bypass }) => `${layers[0]}-${layers.at(-1)}${bypass === 'full' ? 'f' : bypass}`,
  );
  return `${skipped.length > 0 ? 'skip_' : ''}${groups.join('_')}`.slice(0, 200);
}

function describeTarget(target: PlanTarget): string {
  if ('maxSteps' in target) return `at most ${target.maxSteps} sequential steps`;
  if ('targetSpeedup' in target) return `${target.targetSpeedup} times as fast, as layers over steps`;
  return `at most ${(100 * target.maxQualityLoss).toPrecision(3)} % excess perplexity`;
}
