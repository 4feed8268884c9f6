export { type Device, type DeviceOptions, listDevices, tryProvider } from './list.js';
