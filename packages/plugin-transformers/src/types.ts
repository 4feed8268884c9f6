import type { OnProgress, Plan } from '@cqil/core';
import type * as Transformers from '@huggingface/transformers';
import type { AllTasks, PipelineType, PretrainedModelOptions } from '@huggingface/transformers';

/** What this plugin uses of `@huggingface/transformers`: its namespace, or at least these exports. */
export type TransformersModule = Pick<
  typeof Transformers,
  'AutoConfig' | 'AutoModelForCausalLM' | 'ModelRegistry' | 'env' | 'pipeline'
>;

/** How a model is planned when it is loaded. */
export interface CqilOptions {
  /**
   * The plan: a document, the path of one, or `'auto'` (the default), which takes `cqil.plan.json` from the
   * model's own folder or hub repository and loads the model as it is where there is none.
   */
  readonly plan?: Plan | URL | string;
  /**
   * A folder for rewritten graphs, instead of `.cqil` beside the model (or the user's cache folder, where
   * the model's folder cannot be written).
   */
  readonly cacheDir?: string;
  /**
   * Checks the rewritten graph against the original before it is kept: structure, inputs and outputs, weights,
   * and, up to 2 GB, the numbers on short inputs. `false` leaves that out; done when absent.
   */
  readonly verify?: boolean;
  /** Told of the rewriting. Downloads and loading report to Transformers.js's own `progress_callback`. */
  readonly onProgress?: OnProgress;
  /** Stops a rewriting that is under way. */
  readonly signal?: AbortSignal;
}

/** Transformers.js's own options, and `cqil`: the plan for this model, or `false` to load it as it is. */
export type CqilPretrainedModelOptions = PretrainedModelOptions & {
  readonly cqil?: CqilOptions | false;
};

/** A loaded model, as Transformers.js types it. */
export type LoadedModel = Awaited<ReturnType<typeof Transformers.AutoModelForCausalLM.from_pretrained>>;

/** Transformers.js's `pipeline`, with the option `cqil`. */
export type CqilPipeline = <T extends PipelineType>(
  task: T,
  model?: string,
  options?: CqilPretrainedModelOptions,
) => Promise<AllTasks[T]>;

/** Transformers.js's `AutoModelForCausalLM`, with the option `cqil`. */
export type CqilAutoModelForCausalLM = Omit<typeof Transformers.AutoModelForCausalLM, 'from_pretrained'> & {
  new (): Transformers.AutoModelForCausalLM;
  from_pretrained(model: string, options?: CqilPretrainedModelOptions): Promise<LoadedModel>;
};

/** A Transformers.js namespace in which loading a language model applies a plan. */
export type WithCqil<M extends TransformersModule> = Omit<M, 'AutoModelForCausalLM' | 'pipeline'> & {
  readonly AutoModelForCausalLM: CqilAutoModelForCausalLM;
  readonly pipeline: CqilPipeline;
};
