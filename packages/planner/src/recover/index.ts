export { recover } from './recover.js';
export { DEFAULT_ROLES } from './roles.js';
export type { GroupRecovery, RecoverOptions, RecoverResult, RecoveryStep } from './types.js';
