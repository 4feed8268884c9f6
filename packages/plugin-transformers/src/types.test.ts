import type * as Transformers from '@huggingface/transformers';
import type { AllTasks, PretrainedModelOptions, TextGenerationPipeline } from '@huggingface/transformers';
import { describe, expectTypeOf, it } from 'vitest';
import type { CqilPretrainedModelOptions, WithCqil } from './types.js';

type Module = typeof Transformers;
type Wrapped = WithCqil<Module>;

declare const wrapped: Wrapped;
declare const original: Module;

// These are checked by the compiler; none of the functions is ever called.
describe('the types', () => {
  it("of a pipeline are Transformers.js's own", () => {
    const ours = () => wrapped.pipeline('text-generation', 'model', { dtype: 'q4' });
    const theirs = () => original.pipeline('text-generation', 'model', { dtype: 'q4' });
    expectTypeOf(ours).toEqualTypeOf(theirs);
    expectTypeOf<Awaited<ReturnType<typeof ours>>>().toExtend<TextGenerationPipeline>();
    const other = () => wrapped.pipeline('feature-extraction');
    const otherTheirs = () => original.pipeline('feature-extraction');
    expectTypeOf(other).toEqualTypeOf(otherTheirs);
    expectTypeOf<Awaited<ReturnType<typeof ours>>>().toEqualTypeOf<AllTasks['text-generation']>();
  });

  it("of a model are Transformers.js's own", () => {
    const ours = () => wrapped.AutoModelForCausalLM.from_pretrained('model', { device: 'cpu' });
    const theirs = () => original.AutoModelForCausalLM.from_pretrained('model', { device: 'cpu' });
    expectTypeOf(ours).toEqualTypeOf(theirs);
  });

  it('fit wherever the originals do', () => {
    expectTypeOf<Wrapped['pipeline']>().toExtend<Module['pipeline']>();
    expectTypeOf<Wrapped['AutoModelForCausalLM']>().toExtend<Module['AutoModelForCausalLM']>();
    expectTypeOf<PretrainedModelOptions>().toExtend<CqilPretrainedModelOptions>();
    expectTypeOf<Wrapped>().toExtend<Module>();
  });

  it('of all other exports are the same', () => {
    type Others = Exclude<keyof Module, 'AutoModelForCausalLM' | 'pipeline'>;
    expectTypeOf<Pick<Wrapped, Others>>().toEqualTypeOf<Pick<Module, Others>>();
  });

  it('have the option, and no other', () => {
    type Option = NonNullable<CqilPretrainedModelOptions['cqil']>;
    expectTypeOf<Parameters<Wrapped['pipeline']>[2]>().toEqualTypeOf<
      CqilPretrainedModelOptions | undefined
    >();
    expectTypeOf<Parameters<Wrapped['AutoModelForCausalLM']['from_pretrained']>[1]>().toEqualTypeOf<
      CqilPretrainedModelOptions | undefined
    >();
    expectTypeOf<
      Exclude<keyof CqilPretrainedModelOptions, keyof PretrainedModelOptions>
    >().toEqualTypeOf<'cqil'>();
    expectTypeOf<{ plan: { version: 1; layers: 6; groups: [] } }>().toExtend<Option>();
    expectTypeOf<{ plan: { layers: 6 } }>().not.toExtend<Option>();
    const bypassed = () => wrapped.pipeline('text-generation', 'model', { cqil: false });
    expectTypeOf(bypassed).returns.resolves.toExtend<TextGenerationPipeline>();
  });
});
