import { isUnusable, loadLibrary } from '../session/native/library.js';
import { libraryFile } from '../session/native/library-file.js';
import { type Explanation, explain } from './explain.js';
import { type Hardware, readHardware } from './hardware.js';
import { type Device, type DeviceOptions, listDevices } from './list.js';

/** How sessions reach ONNX Runtime here. */
export type LibraryState =
  | { readonly binding: 'native'; readonly file: string; readonly version: string }
  | ({ readonly binding: 'node'; readonly file: string } & Explanation);

export interface Examination {
  readonly hardware: Hardware;
  readonly library: LibraryState;
  readonly devices: readonly (Device & Explanation)[];
  /** What costs speed although it works. */
  readonly advice: readonly string[];
}

/**
 * Looks at what this machine has, tries what can be tried, and says what is missing and how to mend it. Drivers are tried
 * in processes of their own. Nothing is changed.
 */
export async function examine(options: DeviceOptions = {}): Promise<Examination> {
  const hardware = await readHardware();
  const library = await libraryState();
  const devices = (await listDevices(options)).map((device) => ({ ...device, ...explain(device, hardware) }));
  return { hardware, library, devices, advice: adviceFor(hardware, library) };
}

async function libraryState(): Promise<LibraryState> {
  try {
    const { file, version } = await loadLibrary();
    return { binding: 'native', file, version };
  } catch (error) {
    if (!isUnusable(error)) throw error;
    const { hint, found } = error;
    return {
      binding: 'node',
      file: libraryFile().file,
      says: `${error.message} ${found ?? ''}`.trim(),
      ...(hint === undefined ? {} : { mend: hint }),
    };
  }
}

/** What a machine's owner would want to know, from facts alone. */
export function adviceFor(hardware: Hardware, library: Pick<LibraryState, 'binding'>): string[] {
  const advice: string[] = [];
  const { cores, cpuLimit, numaNodes, instructionSets, arch } = hardware;
  if (cpuLimit !== undefined && cpuLimit < cores) {
    advice.push(
      `This container may use ${cpuLimit} CPUs' worth of time, but sees ${cores}: give \`threads: ${Math.max(1, Math.floor(cpuLimit))}\`, or more threads than that will wait for each other.`,
    );
  }
  if (numaNodes > 1) {
    advice.push(
      `The memory has ${numaNodes} NUMA nodes: keep a process and its memory on one (numactl --cpunodebind=0 --membind=0).`,
    );
  }
  if (arch === 'x64' && !instructionSets.includes('avx512_vnni') && !instructionSets.includes('avx_vnni')) {
    advice.push(
      'The processor has no VNNI instructions: 4-bit models compute slower here than on newer ones.',
    );
  }
  if (library.binding === 'node') {
    advice.push(
      'Without the native binding, caches are copied for each token and the event loop waits for the model.',
    );
  }
  return advice;
}
