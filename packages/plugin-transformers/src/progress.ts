import type { ProgressCallback, ProgressInfo } from '@huggingface/transformers';

type Totals = Extract<ProgressInfo, { status: 'progress_total' }>;

/**
 * Tells a user's `progress_callback` about the planned graph under the name of the graph that it stands for.
 *
 * Transformers.js adds up the files that it expects to load (the original graph and its data) and those that
 * it does load (the planned graph), so the sum would never be reached; here the second stands for the first.
 *
 * @param planned the planned graph's name as Transformers.js reports it
 * @param original the names of the original graph and of its data files
 */
export function reportAs(
  callback: ProgressCallback,
  planned: string,
  original: { readonly graph: string; readonly data: readonly string[] },
): ProgressCallback {
  return (info) => {
    if (info.status === 'progress_total') callback(merged(info, planned, original));
    else if ('file' in info && info.file === planned) callback({ ...info, file: original.graph });
    else callback(info);
  };
}

function merged(
  info: Totals,
  planned: string,
  original: { readonly graph: string; readonly data: readonly string[] },
): Totals {
  const files = { ...info.files };
  const own = files[planned];
  delete files[planned];
  if (own !== undefined) files[original.graph] = own;
  // The planned graph brings its own data, which ONNX Runtime opens by itself.
  for (const name of original.data) delete files[name];
  let loaded = 0;
  let total = 0;
  for (const file of Object.values(files)) {
    loaded += file.loaded;
    total += file.total;
  }
  return { ...info, files, loaded, total, progress: total > 0 ? (loaded / total) * 100 : 0 };
}
