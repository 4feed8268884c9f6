import { pathToFileURL } from 'node:url';

/** `generate` of Transformers.js calls a session about ten frames down; programs may wrap some of them. */
const DEPTH = 40;

/**
 * Whether the code that is running was called by `generate` of Transformers.js, without a pause in between.
 *
 * `generate` reads the logits of the last position only. A graph with the input `num_logits_to_keep` is told so; to one
 * without, nothing but the caller tells `generate` from a direct call of the model, which may read them all.
 *
 * @param folders of Transformers.js packages
 */
export function calledByGenerate(folders: readonly string[]): boolean {
  const places = folders.flatMap((folder) => [`${folder}/`, `${folder}\\`, `${pathToFileURL(folder).href}/`]);
  return frames().some((frame) => {
    if (frame.getFunctionName() !== 'generate' && frame.getMethodName() !== 'generate') return false;
    const file = frame.getFileName();
    return file != null && places.some((place) => file.startsWith(place));
  });
}

function frames(): NodeJS.CallSite[] {
  const { prepareStackTrace, stackTraceLimit } = Error;
  try {
    Error.stackTraceLimit = DEPTH;
    Error.prepareStackTrace = (_, sites) => sites;
    return new Error().stack as unknown as NodeJS.CallSite[];
  } finally {
    Error.prepareStackTrace = prepareStackTrace;
    Error.stackTraceLimit = stackTraceLimit;
  }
}
