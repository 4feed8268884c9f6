export {
  type BenchModel,
  type BenchModelResult,
  type BenchOptions,
  type BenchResult,
  bench,
} from './bench.js';
export { type Machine, machine } from './machine.js';
export { type Spread, spread } from './spread.js';
