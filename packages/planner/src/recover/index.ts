export { type RecoveryHeader, readGroupRecoveries, writeGroupRecovery } from './files.js';
export {
  describeRefitted,
  RECOVERY_METADATA_KEY,
  type RefittedMap,
  refittedMaps,
} from './metadata.js';
export { recover } from './recover.js';
export { DEFAULT_ROLES } from './roles.js';
export type { GroupRecovery, RecoverOptions, RecoverResult, RecoveryStep } from './types.js';
