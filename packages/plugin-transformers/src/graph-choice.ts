import { posix } from 'node:path';
import { UsageError } from '@cqil/core';
import { DTYPE_SUFFIXES, type NamedDtype } from '@cqil/planner';
import type { PretrainedModelOptions } from '@huggingface/transformers';
import type { TransformersModule } from './types.js';

type Config = NonNullable<PretrainedModelOptions['config']>;

/** The graph that Transformers.js would load. */
export interface GraphChoice {
  /** Relative to the model's folder, with forward slashes: `onnx/model_q4.onnx`. */
  readonly graph: string;
  readonly dtype: NamedDtype | 'as-is';
  /** The files of external data that Transformers.js would fetch with it. */
  readonly data: readonly string[];
}

/**
 * Asks Transformers.js which graph of the model it would load, so that `dtype`, `device`, `model_file_name`,
 * `subfolder` and the model's own `transformers.js_config` mean what they always mean.
 *
 * @throws UsageError `MODEL_NOT_DECODER` where it is not one graph of a causal language model
 */
export async function chooseGraph(
  transformers: TransformersModule,
  model: string,
  config: Config,
  options: PretrainedModelOptions,
): Promise<GraphChoice> {
  const type = (config as { model_type?: unknown }).model_type;
  if (typeof type !== 'string' || !transformers.AutoModelForCausalLM.supports(type)) {
    throw notDecoder(model, `model_type ${JSON.stringify(type)}`);
  }
  const own = withDeviceConfig(config, options.device);
  const files = await transformers.ModelRegistry.get_model_files(model, {
    config: own,
    ...pick(options, ['dtype', 'device', 'model_file_name']),
  });
  const graphs = files.filter((file) => file.endsWith('.onnx'));
  const [graph] = graphs;
  if (graph === undefined || graphs.length > 1) {
    throw notDecoder(model, `a model of ${graphs.length} graphs: ${graphs.join(', ')}`);
  }
  const name = posix.basename(graph);
  const folder = options.subfolder ?? 'onnx';
  const within = (file: string) => posix.join(folder, file);
  const base = options.model_file_name ?? 'model';
  return {
    graph: within(name),
    dtype: dtypeOf(name, base),
    data: dataFiles(name, base, options.use_external_data_format, own).map(within),
  };
}

function notDecoder(model: string, found: string): UsageError {
  return new UsageError('MODEL_NOT_DECODER', `No plan can be applied to ${model}.`, {
    expected: 'a decoder language model in one graph, as AutoModelForCausalLM loads it',
    found,
    hint: 'load it without a plan (`cqil: false`)',
  });
}

/** The config with its section for the device laid over it, as Transformers.js does before it reads dtypes. */
function withDeviceConfig(config: Config, device: PretrainedModelOptions['device']): Config {
  const custom = config['transformers.js_config'];
  const chosen = device ?? custom?.device;
  const name = typeof chosen === 'string' ? chosen : (chosen?.model ?? 'cpu');
  const section = custom?.device_config?.[name];
  if (section === undefined) return config;
  return Object.assign(Object.create(Object.getPrototypeOf(config)), config, {
    'transformers.js_config': { ...custom, ...section },
  });
}

function dtypeOf(fileName: string, base: string): NamedDtype | 'as-is' {
  for (const [dtype, suffix] of Object.entries(DTYPE_SUFFIXES)) {
    if (fileName === `${base}${suffix}.onnx`) return dtype as NamedDtype;
  }
  return 'as-is';
}

/** `model.onnx_data`, `model.onnx_data_1`, …: as many as the option says, or else the model's config. */
function dataFiles(
  fileName: string,
  base: string,
  option: PretrainedModelOptions['use_external_data_format'],
  config: Config,
): string[] {
  const format = option ?? config['transformers.js_config']?.use_external_data_format;
  const count = Number(
    typeof format === 'object' && format !== null ? (format[fileName] ?? format[base] ?? 0) : (format ?? 0),
  );
  return Array.from({ length: count }, (_, i) => `${fileName}_data${i === 0 ? '' : `_${i}`}`);
}

function pick<T extends object, K extends keyof T>(value: T, keys: readonly K[]): Pick<T, K> {
  return Object.fromEntries(
    keys.filter((key) => value[key] !== undefined && value[key] !== null).map((key) => [key, value[key]]),
  ) as Pick<T, K>;
}
