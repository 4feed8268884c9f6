export { formatProbe, type ProbeResult, readProbe, writeProbe } from './document.js';
export { type ProbeOptions, probe } from './probe.js';
