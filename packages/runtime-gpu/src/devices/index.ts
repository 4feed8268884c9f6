export { adviceFor, type Examination, examine, type LibraryState } from './doctor.js';
export { type Explanation, explain } from './explain.js';
export { type GpuVendor, type Hardware, readHardware } from './hardware.js';
export { type Device, type DeviceOptions, listDevices, tryProvider } from './list.js';
export { type ProviderUsage, providerUsage } from './usage.js';
