export { openSession } from './open.js';
export { keepQuiet } from './telemetry.js';
export type { ProviderName, Session, SessionOptions, ValueInfo } from './types.js';
