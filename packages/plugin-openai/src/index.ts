export type { Limits } from './api/limits.js';
export type { Timings } from './api/writer.js';
export {
  createOpenAIHandler,
  type HandlerOptions,
  type OpenAIHandler,
} from './handler.js';
export type { Cors } from './http/origin.js';
export type {
  ChatMessage,
  ChatOptions,
  ChatTool,
  ChatToolCall,
  EncodeOptions,
  JsonSchema,
  TextModel,
  TextPiece,
  TextRequest,
  TokenLogprob,
  Tokens,
  TokenText,
  ToolFormat,
} from './model.js';
export { ModelLostError } from './model.js';
export { toFastifyPlugin, toNodeListener } from './node/listener.js';
export {
  type CloseOptions,
  type ServableHandler,
  type ServeOptions,
  type Server,
  serve,
} from './node/serve.js';
export {
  type FolderSource,
  type ModelFolder,
  type ModelFolderOptions,
  openModelFolder,
} from './runtime/folder.js';
export {
  type DraftModel,
  type LocalTextModel,
  openTextModel,
  type TextModelOptions,
  textModelMemory,
} from './runtime/open.js';
export type { Logger } from './serving/record.js';
export type { ModelSource } from './serving/served.js';
