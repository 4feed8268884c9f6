import type {
  Backend,
  InferenceSession,
  InferenceSessionHandler,
  Tensor,
  TensorConstructor,
} from 'onnxruntime-common';

/*
 * The parts of ONNX Runtime's JavaScript half that a backend meets, under names of their own: `Tensor` is also what
 * Transformers.js calls its wrapper.
 */

export type OrtBackend = Backend;
export type OrtHandler = InferenceSessionHandler;
export type OrtTensor = Tensor;
export type OrtTensorClass = TensorConstructor;
export type OrtSessionOptions = InferenceSession.SessionOptions;
export type OrtValueMetadata = InferenceSession.ValueMetadata;
export type Feeds = Readonly<Record<string, OrtTensor>>;
/** The outputs that are wanted; a tensor where memory to write to was given. */
export type Fetches = Readonly<Record<string, OrtTensor | null>>;
export type Results = Record<string, OrtTensor>;
