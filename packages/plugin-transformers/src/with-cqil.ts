import { UsageError } from '@cqil/core';
import type { AllTasks, PipelineType, PretrainedModelOptions } from '@huggingface/transformers';
import { freeOnDispose } from './disposal.js';
import { prepare } from './prepare.js';
import type {
  CqilAutoModelForCausalLM,
  CqilOptions,
  CqilPipeline,
  CqilPretrainedModelOptions,
  LoadedModel,
  TransformersModule,
  WithCqil,
} from './types.js';

/**
 * Gives a Transformers.js whose `pipeline('text-generation', …)` and `AutoModelForCausalLM` load models by a
 * plan: the graph is rewritten once, the result is kept beside the model, and Transformers.js loads it.
 *
 * All else is Transformers.js's own: tokenizer, options, progress, streaming, generation, other tasks.
 * What the model's generation leaves on a device is freed by `dispose()` of the model or the pipeline.
 *
 * @param transformers the namespace `import * as transformers from '@huggingface/transformers'`
 * @param defaults for every model; `pipeline` and `from_pretrained` take the same as the option `cqil`
 * @returns the same exports, with `pipeline` and `AutoModelForCausalLM` replaced
 * @throws UsageError `TRANSFORMERS_UNSUPPORTED`
 * @example
 * import * as transformers from '@huggingface/transformers';
 * import { withCqil } from '@cqil/plugin-transformers';
 *
 * const { pipeline } = withCqil(transformers, { plan: './plan.json' });
 * const generator = await pipeline('text-generation', './models/SmolLM2-135M-Instruct');
 */
export function withCqil<M extends TransformersModule>(
  transformers: M,
  defaults: CqilOptions = {},
): WithCqil<M> {
  assertSupported(transformers);

  const load = async (
    model: string | undefined,
    { cqil, ...options }: CqilPretrainedModelOptions,
  ): Promise<PretrainedModelOptions> =>
    cqil === false ? options : prepare(transformers, model, options, { ...defaults, ...cqil });

  const pipeline: CqilPipeline = async <T extends PipelineType>(
    task: T,
    model?: string,
    options: CqilPretrainedModelOptions = {},
  ): Promise<AllTasks[T]> => {
    const { cqil: _, ...own } = options;
    if (task !== 'text-generation') return transformers.pipeline(task, model, own);
    const loaded = await transformers.pipeline(task, model, await load(model, options));
    freeOnDispose((loaded as AllTasks['text-generation']).model);
    return loaded;
  };

  class AutoModelForCausalLM extends transformers.AutoModelForCausalLM {
    static override async from_pretrained(
      model: string,
      options: CqilPretrainedModelOptions = {},
    ): Promise<LoadedModel> {
      const loaded = await transformers.AutoModelForCausalLM.from_pretrained(
        model,
        await load(model, options),
      );
      freeOnDispose(loaded);
      return loaded;
    }
  }

  return {
    ...transformers,
    pipeline,
    AutoModelForCausalLM: AutoModelForCausalLM as CqilAutoModelForCausalLM,
  };
}

function assertSupported({ env, ModelRegistry }: Partial<TransformersModule>): void {
  const version = env?.version;
  if (version?.startsWith('4.') && ModelRegistry?.get_model_files !== undefined) return;
  throw new UsageError('TRANSFORMERS_UNSUPPORTED', 'This is not a Transformers.js that the plugin knows.', {
    expected: 'the namespace of @huggingface/transformers 4',
    found: version === undefined ? 'something else' : `version ${version}`,
    hint: "import * as transformers from '@huggingface/transformers', and give that to withCqil",
  });
}
