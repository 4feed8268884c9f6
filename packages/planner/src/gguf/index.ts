export { type ImportOptions, type ImportResult, importGguf } from './import.js';
export type { Metadata, MetadataArray, MetadataValue } from './metadata.js';
export type { ImportRecord, TransformersDtype } from './model-config.js';
export { type GgufModel, readGguf } from './model-file.js';
export type { LlamaParameters, RopeParameters } from './parameters.js';
export type { GgufTensor } from './reader.js';
export { IMPORT_DTYPES, type ImportDtype } from './storage.js';
