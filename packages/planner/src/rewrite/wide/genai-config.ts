import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { ModelFormatError } from '@cqil/core';
import type { Model } from '../../onnx/index.js';
import type { ModelSource } from '../../source/index.js';
import { cacheEntries } from './kv.js';
import { parseJson } from './metadata.js';

const NAME = 'genai_config.json';

/**
 * ONNX Runtime GenAI counts a model's caches by its configuration's `num_hidden_layers` (and reads their heads off the
 * graph), so with merged caches it must be their number. Transformers.js takes names and shapes from the graph, and its
 * `config.json` stays as it is.
 *
 * @returns side files by name; none where nothing changes
 * @throws ModelFormatError `GENAI_CONFIG`
 */
export async function changedConfigs(source: ModelSource, model: Model): Promise<Map<string, string>> {
  const entries = cacheEntries(model);
  if (entries === undefined || !source.sideFiles.includes(NAME)) return new Map();
  const config = parseJson(await readFile(path.join(source.root, NAME), 'utf8')) as
    | { model?: { decoder?: { num_hidden_layers?: unknown } } }
    | undefined;
  const decoder = config?.model?.decoder;
  if (typeof decoder?.num_hidden_layers !== 'number') {
    throw new ModelFormatError('GENAI_CONFIG', `${NAME} does not say how many layers the model has.`, {
      expected: 'a number under model.decoder.num_hidden_layers',
      found: JSON.stringify(decoder?.num_hidden_layers) ?? 'nothing',
      hint: 'Keep one cache for each original layer.',
    });
  }
  decoder.num_hidden_layers = entries.length;
  return new Map([[NAME, `${JSON.stringify(config, null, 4)}\n`]]);
}
