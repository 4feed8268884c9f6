export { DecoderSession, type ForwardRequest, type ForwardResult } from './decoder.js';
export type { Logits } from './logits.js';
export type { StepCache, StepModel, StepRequest, StepResult } from './step-model.js';
