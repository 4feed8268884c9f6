import type koffi from 'koffi';
import type { KoffiFunc } from 'koffi';

/** A pointer: koffi carries them as whole numbers; 0n or null is none. */
export type Pointer = bigint;
/** What koffi takes where C wants a pointer: one, or memory of ours. */
type Ref = Pointer | ArrayBufferView | null;
/** What every fallible function of the C API returns: null when all went well. */
export type Status = Pointer | null;

/** The functions of `OrtApi` that this package calls. The `out` arguments take a `BigUint64Array` of one element. */
export interface OrtApi {
  GetErrorCode: KoffiFunc<(status: Pointer) => number>;
  GetErrorMessage: KoffiFunc<(status: Pointer) => string>;
  CreateEnv: KoffiFunc<(severity: number, id: string, out: Ref) => Status>;
  DisableTelemetryEvents: KoffiFunc<(env: Pointer) => Status>;
  CreateSession: KoffiFunc<(env: Pointer, path: string, options: Pointer, out: Ref) => Status>;
  CreateSessionFromArray: KoffiFunc<
    (env: Pointer, data: Ref, length: number, options: Pointer, out: Ref) => Status
  >;
  Run: KoffiFunc<
    (
      session: Pointer,
      options: Pointer,
      inputNames: Ref,
      inputs: Ref,
      inputCount: number,
      outputNames: Ref,
      outputCount: number,
      outputs: Ref,
    ) => Status
  >;
  CreateSessionOptions: KoffiFunc<(out: Ref) => Status>;
  SetSessionLogSeverityLevel: KoffiFunc<(options: Pointer, level: number) => Status>;
  SetSessionGraphOptimizationLevel: KoffiFunc<(options: Pointer, level: number) => Status>;
  SetIntraOpNumThreads: KoffiFunc<(options: Pointer, threads: number) => Status>;
  AddSessionConfigEntry: KoffiFunc<(options: Pointer, key: string, value: string) => Status>;
  SessionGetInputCount: KoffiFunc<(session: Pointer, out: Ref) => Status>;
  SessionGetOutputCount: KoffiFunc<(session: Pointer, out: Ref) => Status>;
  SessionGetInputTypeInfo: KoffiFunc<(session: Pointer, index: number, out: Ref) => Status>;
  SessionGetOutputTypeInfo: KoffiFunc<(session: Pointer, index: number, out: Ref) => Status>;
  SessionGetInputName: KoffiFunc<(session: Pointer, index: number, allocator: Pointer, out: Ref) => Status>;
  SessionGetOutputName: KoffiFunc<(session: Pointer, index: number, allocator: Pointer, out: Ref) => Status>;
  CreateRunOptions: KoffiFunc<(out: Ref) => Status>;
  RunOptionsSetRunLogSeverityLevel: KoffiFunc<(options: Pointer, level: number) => Status>;
  RunOptionsSetTerminate: KoffiFunc<(options: Pointer) => Status>;
  CreateTensorWithDataAsOrtValue: KoffiFunc<
    (
      info: Pointer,
      data: Ref,
      byteLength: number,
      dims: Ref,
      rank: number,
      elementType: number,
      out: Ref,
    ) => Status
  >;
  GetTensorMutableData: KoffiFunc<(value: Pointer, out: Ref) => Status>;
  CastTypeInfoToTensorInfo: KoffiFunc<(info: Pointer, out: Ref) => Status>;
  GetTensorElementType: KoffiFunc<(info: Pointer, out: Ref) => Status>;
  GetDimensionsCount: KoffiFunc<(info: Pointer, out: Ref) => Status>;
  GetDimensions: KoffiFunc<(info: Pointer, dims: Ref, rank: number) => Status>;
  GetSymbolicDimensions: KoffiFunc<(info: Pointer, names: Ref, rank: number) => Status>;
  GetTensorTypeAndShape: KoffiFunc<(value: Pointer, out: Ref) => Status>;
  CreateCpuMemoryInfo: KoffiFunc<(allocator: number, memory: number, out: Ref) => Status>;
  AllocatorFree: KoffiFunc<(allocator: Pointer, memory: Pointer) => Status>;
  GetAllocatorWithDefaultOptions: KoffiFunc<(out: Ref) => Status>;
  ReleaseStatus: KoffiFunc<(status: Pointer) => void>;
  ReleaseSession: KoffiFunc<(session: Pointer) => void>;
  ReleaseValue: KoffiFunc<(value: Pointer) => void>;
  ReleaseRunOptions: KoffiFunc<(options: Pointer) => void>;
  ReleaseTypeInfo: KoffiFunc<(info: Pointer) => void>;
  ReleaseTensorTypeAndShapeInfo: KoffiFunc<(info: Pointer) => void>;
  ReleaseSessionOptions: KoffiFunc<(options: Pointer) => void>;
}

const P = 'void *';
/** A path as the platform's C library takes it: `ORTCHAR_T` is `wchar_t` on Windows. */
const PATH = process.platform === 'win32' ? 'str16' : 'str';

/**
 * Place in the table, result and arguments of each function. The table only ever grows at its end (the header's
 * own rule for `OrtApi`), so a place holds for every later version.
 */
const SIGNATURES: Readonly<
  Record<keyof OrtApi, readonly [place: number, result: string, args: readonly string[]]>
> = {
  GetErrorCode: [1, 'int', [P]],
  GetErrorMessage: [2, 'str', [P]],
  CreateEnv: [3, P, ['int', 'str', P]],
  DisableTelemetryEvents: [6, P, [P]],
  CreateSession: [7, P, [P, PATH, P, P]],
  CreateSessionFromArray: [8, P, [P, P, 'size_t', P, P]],
  Run: [9, P, [P, P, P, P, 'size_t', P, 'size_t', P]],
  CreateSessionOptions: [10, P, [P]],
  SetSessionLogSeverityLevel: [22, P, [P, 'int']],
  SetSessionGraphOptimizationLevel: [23, P, [P, 'int']],
  SetIntraOpNumThreads: [24, P, [P, 'int']],
  SessionGetInputCount: [30, P, [P, P]],
  SessionGetOutputCount: [31, P, [P, P]],
  SessionGetInputTypeInfo: [33, P, [P, 'size_t', P]],
  SessionGetOutputTypeInfo: [34, P, [P, 'size_t', P]],
  SessionGetInputName: [36, P, [P, 'size_t', P, P]],
  SessionGetOutputName: [37, P, [P, 'size_t', P, P]],
  CreateRunOptions: [39, P, [P]],
  RunOptionsSetRunLogSeverityLevel: [41, P, [P, 'int']],
  RunOptionsSetTerminate: [46, P, [P]],
  CreateTensorWithDataAsOrtValue: [49, P, [P, P, 'size_t', P, 'size_t', 'int', P]],
  GetTensorMutableData: [51, P, [P, P]],
  CastTypeInfoToTensorInfo: [55, P, [P, P]],
  GetTensorElementType: [60, P, [P, P]],
  GetDimensionsCount: [61, P, [P, P]],
  GetDimensions: [62, P, [P, P, 'size_t']],
  GetSymbolicDimensions: [63, P, [P, P, 'size_t']],
  GetTensorTypeAndShape: [65, P, [P, P]],
  CreateCpuMemoryInfo: [69, P, ['int', 'int', P]],
  AllocatorFree: [76, P, [P, P]],
  GetAllocatorWithDefaultOptions: [78, P, [P]],
  ReleaseStatus: [93, 'void', [P]],
  ReleaseSession: [95, 'void', [P]],
  ReleaseValue: [96, 'void', [P]],
  ReleaseRunOptions: [97, 'void', [P]],
  ReleaseTypeInfo: [98, 'void', [P]],
  ReleaseTensorTypeAndShapeInfo: [99, 'void', [P]],
  ReleaseSessionOptions: [100, 'void', [P]],
  AddSessionConfigEntry: [130, P, [P, 'str', 'str']],
};

const PLACES = 1 + Math.max(...Object.values(SIGNATURES).map(([place]) => place));

/** The functions behind a pointer to `OrtApi`. */
export function readApi(ffi: typeof koffi, table: Pointer): OrtApi {
  const pointers = ffi.decode(table, P, PLACES) as Pointer[];
  const functions = Object.entries(SIGNATURES).map(([name, [place, result, args]]) => [
    name,
    ffi.decode(pointers[place]!, ffi.proto(result, [...args])) as unknown,
  ]);
  return Object.fromEntries(functions) as OrtApi;
}
