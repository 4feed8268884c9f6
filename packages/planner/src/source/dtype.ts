import { z } from 'zod';

/**
 * The suffix that each dtype adds to a graph's file name in a Transformers.js model folder
 * (`onnx/model_q4.onnx` is `q4`). The table is that of Transformers.js 4.3.
 */
export const DTYPE_SUFFIXES = {
  fp32: '',
  fp16: '_fp16',
  int8: '_int8',
  uint8: '_uint8',
  q8: '_quantized',
  q4: '_q4',
  q4f16: '_q4f16',
  bnb4: '_bnb4',
  q2: '_q2',
  q2f16: '_q2f16',
  q1: '_q1',
  q1f16: '_q1f16',
} as const;

/** A dtype by which Transformers.js names graphs. */
export type NamedDtype = keyof typeof DTYPE_SUFFIXES;

/** What a user may ask for: a dtype, or `auto` for what the model's config says. */
export type DtypeChoice = NamedDtype | 'auto';

export const DTYPES = Object.keys(DTYPE_SUFFIXES) as NamedDtype[];

/** What Transformers.js takes on a CPU when neither the caller nor the model's config says more. */
export const DEFAULT_DTYPE: NamedDtype = 'fp32';

export function isNamedDtype(value: string): value is NamedDtype {
  return Object.hasOwn(DTYPE_SUFFIXES, value);
}

/** The dtype that a graph's file name tells, for the base name `model`; `undefined` for other names. */
export function dtypeOfFileName(fileName: string): NamedDtype | undefined {
  return DTYPES.find((dtype) => fileName === graphFileName(dtype));
}

export function graphFileName(dtype: NamedDtype): string {
  return `model${DTYPE_SUFFIXES[dtype]}.onnx`;
}

const perFile = z.union([z.string(), z.record(z.string(), z.unknown())]);
const transformersJsConfig = z.looseObject({
  dtype: perFile.nullish(),
  device: perFile.nullish(),
  device_config: z.record(z.string(), z.looseObject({ dtype: perFile.nullish() })).nullish(),
});

/**
 * The dtype that Transformers.js would take in node for a model whose `config.json` is `config`.
 *
 * Its order: the caller's choice, then the dtype of the config's section for the device, then the config's
 * own, then fp32. An entry can be a table by session name; a decoder's session is called `model`. As there,
 * a dtype in the config that it does not know counts as none.
 *
 * @param choice what the user asked for; `undefined` and `'auto'` leave it to the config
 */
export function defaultDtype(config: unknown, choice?: DtypeChoice): NamedDtype {
  if (choice !== undefined && choice !== 'auto') return choice;
  const parsed = z
    .looseObject({ 'transformers.js_config': transformersJsConfig.nullish() })
    .safeParse(config);
  const custom = parsed.success ? parsed.data['transformers.js_config'] : undefined;
  const device = forModelSession(custom?.device) ?? 'cpu';
  const ofDevice = custom?.device_config?.[device]?.dtype;
  const configured = forModelSession(ofDevice === undefined ? custom?.dtype : ofDevice);
  return configured !== undefined && isNamedDtype(configured) ? configured : DEFAULT_DTYPE;
}

function forModelSession(entry: string | Record<string, unknown> | null | undefined): string | undefined {
  const value = typeof entry === 'object' && entry !== null ? entry.model : entry;
  return typeof value === 'string' ? value : undefined;
}
