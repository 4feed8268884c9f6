export { createOpenAIHandler, type HandlerOptions } from './handler.js';
export type { ChatMessage, TextModel, TextPiece, TextRequest } from './model.js';
export { type LocalTextModel, openTextModel, type TextModelOptions } from './runtime-model.js';
export { type ServeOptions, type Server, serve } from './serve.js';
