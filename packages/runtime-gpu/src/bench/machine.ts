import os from 'node:os';
import { env } from 'onnxruntime-node';

/** What the numbers were measured on. */
export interface Machine {
  readonly cpu: string;
  /** Threads that the process may use at once. */
  readonly cores: number;
  readonly memoryBytes: number;
  readonly platform: string;
  readonly arch: string;
  readonly node: string;
  readonly onnxruntime: string;
}

export function machine(): Machine {
  return {
    cpu: os.cpus()[0]?.model.trim() ?? 'unknown',
    cores: os.availableParallelism(),
    memoryBytes: os.totalmem(),
    platform: process.platform,
    arch: process.arch,
    node: process.versions.node,
    onnxruntime: env.versions.node ?? 'unknown',
  };
}
