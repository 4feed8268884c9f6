export { type Assignment, type AssignOptions, assignBranches } from './assign.js';
export { calibrateLaunch, calibrateWork } from './calibrate.js';
export { datasheetNames, datasheetProfile } from './datasheets.js';
export { type Exchange, exchangeSeconds } from './exchange.js';
export {
  type Kernel,
  type KernelShapes,
  kernelShapes,
  type LayerPart,
  type Pass,
  SMALL_OPERATORS,
  type SmallOperator,
} from './kernels.js';
export { branchParallel, branchTeams, onOneDevice, type Placement, tensorParallel } from './placement.js';
export {
  type Latency,
  type LatencyParts,
  type PassLatency,
  type PredictOptions,
  predictLatency,
  predictPass,
  programLatency,
} from './predict.js';
export {
  type DeviceProfile,
  type LinkProfile,
  type MachineProfile,
  type MeasuredAttention,
  type MeasuredElementwise,
  type MeasuredProduct,
  parseProfile,
} from './profile.js';
export {
  buildProgram,
  type ExchangeOp,
  type KernelsOp,
  type Op,
  type Program,
  type ProgramOptions,
} from './program.js';
export { type RankedPlacement, type RankOptions, rankPlacements } from './rank.js';
export { type RelativeLatency, type RelativeLatencyOptions, relativeLatency } from './relative.js';
export { type KernelCost, kernelCost } from './roofline.js';
export {
  EAGER_KERNELS,
  ELEMENT_TYPES,
  type ElementType,
  FUSED_KERNELS,
  type KernelCounts,
  type ModelShape,
  modelShape,
  modelShapeNames,
  shapeFromConfig,
} from './shape.js';
