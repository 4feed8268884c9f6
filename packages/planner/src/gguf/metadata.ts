import { ModelFormatError } from '@cqil/core';
import type { Cursor } from './cursor.js';
import { ValueType } from './types.js';

/** An array of metadata: numbers in a typed array, strings, or (rare) arrays of arrays. */
export type MetadataArray =
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | Float32Array
  | Float64Array
  | BigUint64Array
  | BigInt64Array
  | readonly string[]
  | readonly MetadataArray[];

export type MetadataValue = number | bigint | boolean | string | MetadataArray;

const MAX_NESTING = 4;

type NumberArrayConstructor = {
  readonly BYTES_PER_ELEMENT: number;
  new (buffer: ArrayBuffer): Exclude<MetadataArray, readonly unknown[]>;
};

const TYPED_ARRAYS: Readonly<Record<number, NumberArrayConstructor>> = {
  [ValueType.UINT8]: Uint8Array,
  [ValueType.INT8]: Int8Array,
  [ValueType.UINT16]: Uint16Array,
  [ValueType.INT16]: Int16Array,
  [ValueType.UINT32]: Uint32Array,
  [ValueType.INT32]: Int32Array,
  [ValueType.FLOAT32]: Float32Array,
  [ValueType.FLOAT64]: Float64Array,
  [ValueType.BOOL]: Uint8Array,
  [ValueType.UINT64]: BigUint64Array,
  [ValueType.INT64]: BigInt64Array,
};

/** Reads one value of the given type id. */
export async function readValue(cursor: Cursor, type: number, key: string): Promise<MetadataValue> {
  const what = `metadata value "${key}"`;
  switch (type) {
    case ValueType.UINT8:
      return cursor.u8(what);
    case ValueType.INT8:
      return cursor.i8(what);
    case ValueType.UINT16:
      return cursor.u16(what);
    case ValueType.INT16:
      return cursor.i16(what);
    case ValueType.UINT32:
      return cursor.u32(what);
    case ValueType.INT32:
      return cursor.i32(what);
    case ValueType.FLOAT32:
      return cursor.f32(what);
    case ValueType.FLOAT64:
      return cursor.f64(what);
    case ValueType.UINT64:
      return cursor.u64(what);
    case ValueType.INT64:
      return cursor.i64(what);
    case ValueType.BOOL:
      return (await cursor.u8(what)) !== 0;
    case ValueType.STRING:
      return cursor.string(what);
    case ValueType.ARRAY:
      return readArray(cursor, key, 1);
    default:
      throw unknownType(type, key);
  }
}

async function readArray(cursor: Cursor, key: string, depth: number): Promise<MetadataArray> {
  const what = `metadata array "${key}"`;
  const type = await cursor.u32(what);
  const Typed = TYPED_ARRAYS[type];
  if (Typed !== undefined) {
    const count = await cursor.count(Typed.BYTES_PER_ELEMENT, `item count of ${what}`);
    const bytes = await cursor.bytes(count * Typed.BYTES_PER_ELEMENT, what);
    return new Typed(bytes.buffer as ArrayBuffer);
  }
  if (type === ValueType.STRING) {
    const count = await cursor.count(8, `item count of ${what}`);
    const strings: string[] = [];
    for (let i = 0; i < count; i++) strings.push(await cursor.string(what));
    return strings;
  }
  if (type === ValueType.ARRAY && depth < MAX_NESTING) {
    const count = await cursor.count(12, `item count of ${what}`);
    const arrays: MetadataArray[] = [];
    for (let i = 0; i < count; i++) arrays.push(await readArray(cursor, key, depth + 1));
    return arrays;
  }
  throw unknownType(type, key);
}

function unknownType(type: number, key: string): ModelFormatError {
  return new ModelFormatError('GGUF_VALUE_TYPE', `Metadata value "${key}" has an impossible type.`, {
    expected: 'a type id from 0 to 12, arrays nested at most 4 deep',
    found: `${type}`,
    hint: 'The file is damaged, or of a later format version.',
  });
}

/** Typed access to the key-value pairs, with errors that name the key. */
export class Metadata {
  readonly #values: ReadonlyMap<string, MetadataValue>;

  constructor(values: ReadonlyMap<string, MetadataValue>) {
    this.#values = values;
  }

  get keys(): string[] {
    return [...this.#values.keys()];
  }

  has(key: string): boolean {
    return this.#values.has(key);
  }

  get(key: string): MetadataValue | undefined {
    return this.#values.get(key);
  }

  /** @throws ModelFormatError `GGUF_METADATA` where the value is there and no string. */
  string(key: string): string | undefined {
    const value = this.#values.get(key);
    if (value === undefined || typeof value === 'string') return value;
    throw wrong(key, 'a string', value);
  }

  /** @throws ModelFormatError `GGUF_METADATA` where the value is there and no boolean. */
  boolean(key: string): boolean | undefined {
    const value = this.#values.get(key);
    if (value === undefined || typeof value === 'boolean') return value;
    throw wrong(key, 'true or false', value);
  }

  /** A finite number. @throws ModelFormatError `GGUF_METADATA` for anything else that is there. */
  number(key: string): number | undefined {
    const value = this.#values.get(key);
    if (value === undefined) return undefined;
    const number = typeof value === 'bigint' ? Number(value) : value;
    if (typeof number === 'number' && Number.isFinite(number)) return number;
    throw wrong(key, 'a finite number', value);
  }

  /**
   * A whole number in a range.
   * @throws ModelFormatError `GGUF_METADATA` for anything else that is there.
   */
  integer(key: string, min: number, max: number): number | undefined {
    const value = this.number(key);
    if (value === undefined || (Number.isInteger(value) && value >= min && value <= max)) return value;
    throw wrong(key, `a whole number from ${min} to ${max}`, value);
  }

  /** @throws ModelFormatError `GGUF_METADATA` where the value is there and no array of strings. */
  strings(key: string): readonly string[] | undefined {
    const value = this.#values.get(key);
    if (value === undefined) return undefined;
    if (Array.isArray(value) && value.every((item) => typeof item === 'string')) return value;
    throw wrong(key, 'an array of strings', value);
  }

  /** @throws ModelFormatError `GGUF_METADATA` where the value is there and no array of (32-bit or smaller) numbers. */
  numbers(key: string): ArrayLike<number> | undefined {
    const value = this.#values.get(key);
    if (value === undefined) return undefined;
    if (
      ArrayBuffer.isView(value) &&
      !(value instanceof BigInt64Array) &&
      !(value instanceof BigUint64Array)
    ) {
      return value;
    }
    throw wrong(key, 'an array of numbers', value);
  }

  /** The error for a key that has to be there. */
  missing(key: string, meaning: string): ModelFormatError {
    return new ModelFormatError('GGUF_METADATA', `The file does not say ${meaning}.`, {
      expected: `metadata key "${key}"`,
      found: 'no such key',
      hint: 'Convert the model to GGUF again with a current converter.',
    });
  }
}

function wrong(key: string, expected: string, value: MetadataValue): ModelFormatError {
  return new ModelFormatError('GGUF_METADATA', `Metadata value "${key}" makes no sense.`, {
    expected,
    found: describe(value),
    hint: 'The file is damaged or was made by a faulty converter.',
  });
}

function describe(value: MetadataValue): string {
  if (typeof value === 'string') return `the string ${JSON.stringify(value.slice(0, 80))}`;
  if (typeof value === 'object') return `an array of ${value.length} items`;
  return String(value);
}
