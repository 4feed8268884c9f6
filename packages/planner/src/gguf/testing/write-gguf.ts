import { type QuantType, quantLayout, ValueType } from '../types.js';

/** A metadata value with its type, as the container has it. */
export type TypedValue =
  | { readonly u32: number }
  | { readonly f32: number }
  | { readonly bool: boolean }
  | { readonly string: string }
  | { readonly strings: readonly string[] }
  | { readonly f32s: readonly number[] }
  | { readonly i32s: readonly number[] };

export type Pairs = Readonly<Record<string, TypedValue>>;

export interface TensorSpec {
  readonly name: string;
  /** Fastest-running dimension first. */
  readonly dims: readonly (number | bigint)[];
  readonly type: QuantType | number;
  readonly bytes: Uint8Array;
  /** Where the table says it is; one after the other when absent. */
  readonly offset?: number | bigint;
}

export interface GgufSpec {
  readonly version?: number;
  readonly pairs: Pairs | readonly (readonly [string, TypedValue])[];
  readonly tensors: readonly TensorSpec[];
  readonly alignment?: number;
  readonly tensorCount?: bigint;
  readonly pairCount?: bigint;
}

/** Writes GGUF files, wrong ones too: a small writer for tests, independent of the reader. */
export function writeGguf(spec: GgufSpec): Uint8Array {
  const alignment = spec.alignment ?? 32;
  const out = new ByteList();
  const pairs = isList(spec.pairs) ? spec.pairs : Object.entries(spec.pairs);
  out.text('GGUF');
  out.u32(spec.version ?? 3);
  out.u64(spec.tensorCount ?? BigInt(spec.tensors.length));
  out.u64(spec.pairCount ?? BigInt(pairs.length));
  for (const [key, value] of pairs) {
    out.string(key);
    writeValue(out, value);
  }
  let offset = 0;
  for (const tensor of spec.tensors) {
    out.string(tensor.name);
    out.u32(tensor.dims.length);
    for (const dim of tensor.dims) out.u64(BigInt(dim));
    out.u32(typeof tensor.type === 'number' ? tensor.type : quantLayout(tensor.type).id);
    out.u64(BigInt(tensor.offset ?? offset));
    offset = pad(offset + tensor.bytes.byteLength, alignment);
  }
  out.align(alignment);
  for (const tensor of spec.tensors) {
    out.bytes(tensor.bytes);
    out.align(alignment);
  }
  return out.done();
}

function isList(pairs: GgufSpec['pairs']): pairs is readonly (readonly [string, TypedValue])[] {
  return Array.isArray(pairs);
}

function writeValue(out: ByteList, value: TypedValue): void {
  if ('u32' in value) {
    out.u32(ValueType.UINT32);
    out.u32(value.u32);
  } else if ('f32' in value) {
    out.u32(ValueType.FLOAT32);
    out.bytes(new Uint8Array(Float32Array.of(value.f32).buffer));
  } else if ('bool' in value) {
    out.u32(ValueType.BOOL);
    out.bytes(Uint8Array.of(value.bool ? 1 : 0));
  } else if ('string' in value) {
    out.u32(ValueType.STRING);
    out.string(value.string);
  } else if ('strings' in value) {
    out.array(ValueType.STRING, value.strings.length);
    for (const text of value.strings) out.string(text);
  } else if ('f32s' in value) {
    out.array(ValueType.FLOAT32, value.f32s.length);
    out.bytes(new Uint8Array(Float32Array.from(value.f32s).buffer));
  } else {
    out.array(ValueType.INT32, value.i32s.length);
    out.bytes(new Uint8Array(Int32Array.from(value.i32s).buffer));
  }
}

const pad = (length: number, alignment: number) => Math.ceil(length / alignment) * alignment;

class ByteList {
  readonly #parts: Uint8Array[] = [];
  #length = 0;

  bytes(bytes: Uint8Array): void {
    this.#parts.push(bytes);
    this.#length += bytes.byteLength;
  }
  text(text: string): void {
    this.bytes(new TextEncoder().encode(text));
  }
  u32(value: number): void {
    this.bytes(new Uint8Array(Uint32Array.of(value).buffer));
  }
  u64(value: bigint): void {
    this.bytes(new Uint8Array(BigUint64Array.of(value).buffer));
  }
  string(text: string): void {
    const bytes = new TextEncoder().encode(text);
    this.u64(BigInt(bytes.byteLength));
    this.bytes(bytes);
  }
  array(type: number, count: number): void {
    this.u32(ValueType.ARRAY);
    this.u32(type);
    this.u64(BigInt(count));
  }
  align(alignment: number): void {
    this.bytes(new Uint8Array(pad(this.#length, alignment) - this.#length));
  }
  done(): Uint8Array {
    const out = new Uint8Array(this.#length);
    let at = 0;
    for (const part of this.#parts) {
      out.set(part, at);
      at += part.byteLength;
    }
    return out;
  }
}
