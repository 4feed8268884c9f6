export {
  DTYPE_SUFFIXES,
  DTYPES,
  type DtypeChoice,
  defaultDtype,
  graphFileName,
  type NamedDtype,
} from './dtype.js';
export { type FetchOptions, type FetchResult, fetchModel } from './fetch.js';
export { listSideFiles, modelFolderRoots } from './files.js';
export { KNOWN_MODELS, type KnownModel } from './known/models.js';
export { type LocateOptions, locateModel } from './locate.js';
export type { ModelLayout, ModelSource } from './types.js';
