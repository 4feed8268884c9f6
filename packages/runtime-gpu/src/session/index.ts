export { freeTensor } from './native/adopted-tensor.js';
export type { Binding, OutputTarget } from './native/binding.js';
export { NativeSession } from './native/native-session.js';
export type { ResidentTensor } from './native/resident-tensor.js';
export { openSession } from './open.js';
export { keepQuiet } from './telemetry.js';
export type { ProviderName, RunOptions, Session, SessionOptions, ValueInfo } from './types.js';
