import { type FailedNode, InferenceError } from '../errors.js';

/**
 * The node in messages such as `Non-zero status code returned while running Mul node. Name:'/layers.0/Mul'`
 * (at run time) and `... Node (/layers.0/Mul) Op (Mul) ...` (at load time).
 */
export function failedNode(message: string): FailedNode | undefined {
  const running = /while running (\S+) node\. Name:'([^']*)'/.exec(message);
  if (running) return { opType: running[1]!, name: running[2]! };
  const loading = /Node ?\(([^)]*)\) Op ?\(([^)]*)\)/.exec(message);
  if (loading) return { opType: loading[2]!, name: loading[1]! };
  const unknown = /([\w.]+)\((?:-?\d+)\) is not a registered function\/op/.exec(message);
  if (unknown) return { opType: unknown[1]!, name: '' };
  return undefined;
}

/** ONNX Runtime's words without the paths of the machine it was built on. */
export function reason(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  return message
    .replace(/\/onnxruntime_src\/\S+:\d+\s+/g, '')
    .replace(/[A-Z]:\\[^\s]*\\onnxruntime\\\S+:\d+\s+/g, '')
    .trim();
}

const PROVIDER =
  /backend not found|SessionOptionsAppendExecutionProvider|WebGPU adapter|Failed to load shared library/;

export function loadError(model: string, error: unknown): InferenceError {
  if (error instanceof InferenceError) return error;
  const found = reason(error);
  if (PROVIDER.test(found)) {
    return new InferenceError('PROVIDER_UNAVAILABLE', `ONNX Runtime cannot run ${model} on that device.`, {
      expected: 'an execution provider that works on this machine',
      found,
      hint: 'Use `cpu`; `listDevices` tells what else works here and why the rest does not.',
      cause: error,
    });
  }
  const node = failedNode(found);
  return new InferenceError('MODEL_LOAD_FAILED', `ONNX Runtime cannot load ${model}.`, {
    found,
    hint: loadHint(found),
    cause: error,
    ...(node === undefined ? {} : { node }),
  });
}

function loadHint(found: string): string {
  if (/protobuf parsing failed/i.test(found))
    return 'The file is no ONNX model or is damaged; fetch it again.';
  if (/external data/i.test(found)) return 'Keep the .onnx file and its data files in one folder, unchanged.';
  if (/not a registered function\/op|Could not find an implementation/i.test(found)) {
    return 'This build of ONNX Runtime lacks an operator of the model; choose another dtype of it.';
  }
  return 'Check the file with `cqil inspect`.';
}

/** What ONNX Runtime's arena and the C++ library say when memory is at its end. */
const MEMORY = /failed to allocate memory|bad_alloc|bad allocation/i;

export function runError(model: string, error: unknown): InferenceError {
  if (error instanceof InferenceError) return error;
  const found = reason(error);
  const node = failedNode(found);
  if (MEMORY.test(found)) {
    return new InferenceError('OUT_OF_MEMORY', `There was no memory left to run ${model}.`, {
      found,
      hint: 'Feed less at once, or dispose caches that are not needed; the next run may work.',
      cause: error,
      ...(node === undefined ? {} : { node }),
    });
  }
  const where = node === undefined ? '' : ` at node "${node.name}" (${node.opType})`;
  return new InferenceError('RUN_FAILED', `Running ${model} failed${where}.`, {
    found,
    cause: error,
    ...(node === undefined ? {} : { node }),
  });
}
