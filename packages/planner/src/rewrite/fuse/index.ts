export { fuse } from './fuse.js';
export { FUSE_FILE, type FusedModel, type FuseModelOptions, fuseModel } from './fuse-model.js';
export { checkFused, type FuseParity, type FuseParityOptions } from './parity.js';
export {
  FUSE_PASSES,
  type FuseOptions,
  type FusePadding,
  type FusePassName,
  type FusePassReport,
  type FuseRefusal,
  type FuseResult,
} from './types.js';
