import type koffi from 'koffi';
import { InferenceError } from '../../errors.js';
import { keepQuiet } from '../telemetry.js';
import { type OrtApi, type Pointer, readApi, type Status } from './api.js';
import { checkLibraryFile, type LibraryFile, libraryFile, reasonOf, unusable } from './library-file.js';

/** The oldest ONNX Runtime whose contrib operators and C API this package was tried on. */
const OLDEST: readonly [major: number, minor: number] = [1, 20];
/** The newest version of the C API that is asked for; later libraries still serve it. */
const API_VERSION = 22;
/** `OrtDeviceAllocator` and `OrtMemTypeDefault`. */
const DEVICE_ALLOCATOR = 0;
const DEFAULT_MEMORY = 0;
/** `ORT_LOGGING_LEVEL_FATAL`: what fails is thrown. */
const SILENT = 4;

/** ONNX Runtime's C API, loaded into this process. */
export interface OrtLibrary extends LibraryFile {
  readonly version: string;
  readonly api: OrtApi;
  readonly ffi: typeof koffi;
  readonly environment: Pointer;
  /** Describes main memory. */
  readonly mainMemory: Pointer;
  readonly allocator: Pointer;
}

let loaded: Promise<OrtLibrary> | undefined;

/**
 * Loads the library once a process. A process has one ONNX Runtime: what `CQIL_ORT_LIBRARY` says later changes nothing.
 *
 * @throws InferenceError `ORT_LIBRARY_UNUSABLE`: no such file, for another processor, cut short, too old, or
 *   koffi has no build for this platform.
 */
export function loadLibrary(): Promise<OrtLibrary> {
  loaded ??= load(libraryFile()).catch((error: unknown) => {
    loaded = undefined;
    throw error;
  });
  return loaded;
}

async function load(library: LibraryFile): Promise<OrtLibrary> {
  const { file, origin } = library;
  await checkLibraryFile(library);
  keepQuiet();
  if (origin === 'user') await loadPackagedFirst();
  let ffi: typeof koffi;
  try {
    ffi = (await import('koffi')).default;
  } catch (cause) {
    throw unusable(file, 'package', 'cannot be called', 'koffi for this platform', reasonOf(cause));
  }
  let base: Pointer;
  try {
    keepLoaded(ffi, file);
    base = ffi.load(file).func('OrtGetApiBase', 'void *', [])() as Pointer;
  } catch (cause) {
    throw unusable(file, origin, 'cannot be loaded', 'a build of ONNX Runtime', reasonOf(cause));
  }
  // OrtApiBase: GetApi(version), GetVersionString().
  const [getApi, getVersion] = ffi.decode(base, 'void *', 2) as [Pointer, Pointer];
  const version = String(ffi.decode(getVersion, ffi.proto('str', []))());
  const [major = 0, minor = 0] = version.split('.').map(Number);
  if (major !== OLDEST[0] || minor < OLDEST[1]) {
    throw unusable(
      file,
      origin,
      'has a version that cannot be used',
      `${OLDEST.join('.')} or later`,
      version,
    );
  }
  const asked = Math.min(API_VERSION, minor);
  const table = ffi.decode(getApi, ffi.proto('void *', ['uint32']))(asked) as Pointer | null;
  if (table === null) throw unusable(file, origin, 'lacks its C API', `version ${asked}`, version);
  const api = readApi(ffi, table);
  const one = (call: (out: BigUint64Array) => Status) => {
    const out = new BigUint64Array(1);
    check(api, call(out));
    return out[0]!;
  };
  const environment = one((out) => api.CreateEnv(SILENT, 'cqil', out));
  check(api, api.DisableTelemetryEvents(environment));
  return {
    ...library,
    version,
    api,
    ffi,
    environment,
    mainMemory: one((out) => api.CreateCpuMemoryInfo(DEVICE_ALLOCATOR, DEFAULT_MEMORY, out)),
    allocator: one((out) => api.GetAllocatorWithDefaultOptions(out)),
  };
}

/** `RTLD_NOW | RTLD_NODELETE`. */
const STAY: Readonly<Partial<Record<NodeJS.Platform, number>>> = { linux: 0x1002, darwin: 0x82 };

/**
 * At the end of the process koffi gives back what it loaded. ONNX Runtime does not stand being unloaded while its threads
 * and the destructors of its thread-local values are still to come: the process would end with a fault.
 */
function keepLoaded(ffi: typeof koffi, file: string): void {
  const flags = STAY[process.platform];
  if (flags === undefined) return;
  ffi.load(null).func('dlopen', 'void *', ['str', 'int'])(file, flags);
}

/**
 * onnxruntime-node asks the system for its library by a name that another build of ONNX Runtime carries too. Whichever
 * is loaded first answers to that name, and onnxruntime-node on a library of another version ends the process. A
 * library loaded by its path, as ours is, always comes from that path. So the package's own goes first.
 */
async function loadPackagedFirst(): Promise<void> {
  await import('onnxruntime-node');
}

/** What ONNX Runtime says about a call that failed. */
export class OrtFailure extends Error {
  /** `OrtErrorCode`. */
  readonly ortCode: number;

  constructor(ortCode: number, message: string) {
    super(message);
    this.ortCode = ortCode;
  }
}

/** @throws OrtFailure when the status is one, which is released. */
export function check(api: OrtApi, status: Status): void {
  if (status === null) return;
  const code = api.GetErrorCode(status);
  const message = api.GetErrorMessage(status);
  api.ReleaseStatus(status);
  throw new OrtFailure(code, message);
}

/** Calls a function off the main thread. */
export function callAsync<Args extends unknown[], Result>(
  call: { async(...args: [...Args, (error: unknown, result: Result) => void]): void },
  ...args: Args
): Promise<Result> {
  return new Promise((resolve, reject) => {
    call.async(...args, (error: unknown, result: Result) => {
      if (error) reject(error instanceof Error ? error : new Error(String(error)));
      else resolve(result);
    });
  });
}

/** Whether an error says that the native binding cannot be had, so that onnxruntime-node's may stand in. */
export function isUnusable(error: unknown): error is InferenceError {
  return error instanceof InferenceError && error.code === 'ORT_LIBRARY_UNUSABLE';
}
