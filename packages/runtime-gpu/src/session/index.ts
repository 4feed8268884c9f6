export { openSession } from './open.js';
export type { ProviderName, Session, SessionOptions, ValueInfo } from './types.js';
