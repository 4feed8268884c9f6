import { ORT_LIBRARY_VARIABLE } from '../session/native/library-file.js';
import type { Hardware } from './hardware.js';
import type { Device } from './list.js';

/** A device in plain words. */
export interface Explanation {
  readonly says: string;
  /** What to do about it; absent when there is nothing to mend, or nothing that would. */
  readonly mend?: string;
}

/** Why a provider works or does not, from what it said and what the machine has. */
export function explain(device: Device, hardware: Hardware): Explanation {
  if (device.works) return { says: 'computes, and computes right' };
  if (/did not answer/.test(device.reason ?? '')) {
    return {
      says: `its driver hangs: ${device.reason}`,
      mend: 'Restart the machine, or update the driver; other programs will hang on it, too.',
    };
  }
  if (/crashed/.test(device.reason ?? '')) {
    return { says: `its driver ends the process: ${device.reason}`, mend: 'Update or reinstall the driver.' };
  }
  switch (device.provider) {
    case 'cuda':
    case 'tensorrt':
      return nvidia(device, hardware);
    case 'webgpu':
      return webgpu(device, hardware);
    default:
      return { says: device.reason ?? 'it gave no reason' };
  }
}

function nvidia({ provider, reason }: Device, { gpus, nvidiaDriver, platform }: Hardware): Explanation {
  if (!gpus.includes('nvidia')) return { says: 'there is no NVIDIA GPU in this machine' };
  if (nvidiaDriver === undefined) {
    return {
      says: "an NVIDIA GPU is there, but NVIDIA's kernel driver is not loaded",
      mend:
        platform === 'linux'
          ? 'Install the driver (Debian: apt install nvidia-driver), then restart; nvidia-smi must list the GPU.'
          : "Install NVIDIA's driver.",
    };
  }
  if (/Failed to load shared library/.test(reason ?? '')) {
    const what = provider === 'cuda' ? 'CUDA' : 'TensorRT';
    return {
      says: `GPU and driver (${nvidiaDriver}) are there, but ONNX Runtime's ${what} libraries are not`,
      mend: `Let onnxruntime-node fetch them (npm rebuild onnxruntime-node --onnxruntime-node-install=cuda12), or name a build that has them in ${ORT_LIBRARY_VARIABLE}.`,
    };
  }
  return { says: `GPU and driver (${nvidiaDriver}) are there, but it fails: ${reason ?? 'no reason given'}` };
}

function webgpu({ reason }: Device, { gpus, vulkanDrivers, platform }: Hardware): Explanation {
  if (!/adapter/i.test(reason ?? '')) return { says: reason ?? 'it gave no reason' };
  if (platform !== 'linux') {
    return { says: 'no graphics adapter answers', mend: 'Update the graphics driver.' };
  }
  if (vulkanDrivers.length === 0) {
    const software = gpus.length === 0 ? ' There is no GPU either: it would compute on the CPU, slowly.' : '';
    return {
      says: `no Vulkan driver is installed.${software}`,
      mend: 'apt install libvulkan1 mesa-vulkan-drivers',
    };
  }
  if (gpus.length === 0) {
    return {
      says: `there is no GPU in this machine, and the Vulkan drivers that are installed (${vulkanDrivers.join(', ')}) offer none made of software that will do`,
    };
  }
  return {
    says: `Vulkan drivers are installed (${vulkanDrivers.join(', ')}), but none offers an adapter`,
    mend: 'vulkaninfo --summary shows why (apt install vulkan-tools); in a container, pass /dev/dri on.',
  };
}
