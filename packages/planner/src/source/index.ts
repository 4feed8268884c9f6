export {
  DTYPE_SUFFIXES,
  DTYPES,
  type DtypeChoice,
  defaultDtype,
  graphFileName,
  type NamedDtype,
} from './dtype.js';
export { listSideFiles, modelFolderRoots } from './files.js';
export { type LocateOptions, locateModel } from './locate.js';
export type { ModelLayout, ModelSource } from './types.js';
