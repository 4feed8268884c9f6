import { InferenceError } from '../../errors.js';
import type { ValueInfo } from '../types.js';
import type { Pointer, Status } from './api.js';
import { plainType } from './element-types.js';
import { check, type OrtLibrary } from './library.js';

const STRING = 8;

/** The inputs and outputs of a loaded model, or `undefined` where one is no tensor of plain numbers. */
export interface Border {
  readonly inputs: readonly ValueInfo[];
  readonly outputs: readonly ValueInfo[];
  /** Whether every value is plain memory; strings are not. */
  readonly plain: boolean;
}

/** @throws InferenceError `MODEL_LOAD_FAILED` for sequences, maps and other values that are no tensors */
export function readBorder(library: OrtLibrary, session: Pointer): Border {
  const { api } = library;
  const inputs = read(library, {
    count: (out) => api.SessionGetInputCount(session, out),
    name: (i, out) => api.SessionGetInputName(session, i, library.allocator, out),
    type: (i, out) => api.SessionGetInputTypeInfo(session, i, out),
  });
  const outputs = read(library, {
    count: (out) => api.SessionGetOutputCount(session, out),
    name: (i, out) => api.SessionGetOutputName(session, i, library.allocator, out),
    type: (i, out) => api.SessionGetOutputTypeInfo(session, i, out),
  });
  return {
    inputs: inputs.infos,
    outputs: outputs.infos,
    plain: inputs.plain && outputs.plain,
  };
}

interface Getters {
  readonly count: (out: BigUint64Array) => Status;
  readonly name: (index: number, out: BigUint64Array) => Status;
  readonly type: (index: number, out: BigUint64Array) => Status;
}

function read(library: OrtLibrary, get: Getters): { infos: ValueInfo[]; plain: boolean } {
  const { api, ffi } = library;
  const out = new BigUint64Array(1);
  check(api, get.count(out));
  const count = Number(out[0]);
  let plain = true;
  const infos: ValueInfo[] = [];
  for (let i = 0; i < count; i++) {
    check(api, get.name(i, out));
    const name = ffi.decode.string(out[0]!) as string;
    check(api, api.AllocatorFree(library.allocator, out[0]!));
    check(api, get.type(i, out));
    const type = out[0]!;
    try {
      const info = tensorInfo(library, type, name);
      if (info === undefined) plain = false;
      else infos.push(info);
    } finally {
      api.ReleaseTypeInfo(type);
    }
  }
  return { infos, plain };
}

/** `undefined` for elements that are no plain memory. */
function tensorInfo(library: OrtLibrary, typeInfo: Pointer, name: string): ValueInfo | undefined {
  const { api, ffi } = library;
  const out = new BigUint64Array(1);
  check(api, api.CastTypeInfoToTensorInfo(typeInfo, out));
  // Belongs to the type info, and goes with it.
  const info = out[0]!;
  if (info === 0n) {
    throw new InferenceError('MODEL_LOAD_FAILED', `"${name}" is no tensor.`, {
      expected: 'tensors as inputs and outputs',
      hint: 'Models with sequences or maps as inputs or outputs cannot be run.',
    });
  }
  const code = new Int32Array(2);
  check(api, api.GetTensorElementType(info, code));
  if (code[0] === STRING) return undefined;
  const elementType = plainType(code[0]!);
  if (elementType === undefined) {
    throw new InferenceError('MODEL_LOAD_FAILED', `"${name}" has elements that JavaScript cannot hold.`, {
      expected: 'numbers, booleans or strings',
      found: `ONNX element type ${code[0]}`,
    });
  }
  check(api, api.GetDimensionsCount(info, out));
  const rank = Number(out[0]);
  if (rank === 0) return { name, elementType, shape: [] };
  const dims = new BigInt64Array(rank);
  const names = new BigUint64Array(rank);
  check(api, api.GetDimensions(info, dims, rank));
  check(api, api.GetSymbolicDimensions(info, names, rank));
  return {
    name,
    elementType,
    shape: [...dims].map((dim, axis) =>
      dim >= 0n ? Number(dim) : names[axis] === 0n ? '' : (ffi.decode.string(names[axis]!) as string),
    ),
  };
}
