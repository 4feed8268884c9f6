export { type SimulateOptions, type Simulation, type Span, simulate } from './simulate.js';
export { type ChromeTrace, chromeTrace, type TraceEvent } from './trace.js';
