export {
  type AttributeValue,
  elementType,
  floatAttribute,
  intAttribute,
  makeAttributeTensor,
  makeNode,
  makeValueInfo,
  type NodeOptions,
  setAttribute,
  shapeOf,
  stringAttribute,
  tensorAttribute,
} from './build.js';
export { bitsPerElement, DataType, dataTypeName, isFloatType, rawByteLength } from './data-types.js';
export {
  type Attribute,
  describeNode,
  Graph,
  Model,
  type Node,
  nodeInputs,
  operatorName,
  type ValueInfo,
} from './model.js';
export { readModel } from './read.js';
export { attributeTensor, Tensor } from './tensor.js';
export { ComputedData, FileRange, InlineData, type TensorData } from './tensor-data.js';
export { type ExternalDataPolicy, type WriteOptions, writeModel } from './write.js';
