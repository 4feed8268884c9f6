export type { PartitionParity } from './parity.js';
export { type PartitionOptions, partitionModel, type WrittenPartition } from './write-partition.js';
