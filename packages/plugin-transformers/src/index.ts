export { type BackendOptions, type RegisteredBackend, registerBackend } from './backend/register.js';
export type {
  CqilAutoModelForCausalLM,
  CqilOptions,
  CqilPipeline,
  CqilPretrainedModelOptions,
  TransformersModule,
  WithCqil,
} from './types.js';
export { withCqil } from './with-cqil.js';
