import { DataType, floatAttribute, intAttribute, isFloatType, type Node } from '../onnx/index.js';
import type { Constants } from './constants.js';

/** A node that multiplies what it reads by a weight. */
export interface WeightProduct {
  /** The value that is multiplied: numbers, or the codes of a quantised value. */
  readonly data: string;
  readonly reads: 'rows' | 'codes';
  /** Numbers, codes, or sums of products of codes that still lack their scale. */
  readonly gives: 'rows' | 'codes' | 'products';
  readonly inFeatures: number;
  readonly outFeatures: number;
  /** Type of the numbers read and given; that of codes is told by who makes them. */
  readonly type: number | undefined;
  readonly biased: boolean;
  /** Whether the weight is stored in codes. */
  readonly quantised: boolean;
  /** Whether only matrices, no batches of them, are taken. */
  readonly rank2: boolean;
  /** Of `MatMulNBits`, where it is given. */
  readonly accuracyLevel?: number;
  /** Of products in blocks: bits of a code, and inputs that share a scale. */
  readonly blocks?: { readonly bits: number; readonly blockSize: number };
}

/** Products that an activation is fused into: there is no value behind their affine part. */
const WITH_ACTIVATION = new Set(['FusedGemm', 'FusedMatMulActivation']);
const BLOCK_PRODUCTS = new Set(['MatMulNBits', 'MatMulBnb4']);

export function hasActivation(node: Node): boolean {
  return node.domain === 'com.microsoft' && WITH_ACTIVATION.has(node.opType);
}

/** Reads a node as a product with a weight; `undefined` where it is none. Sources: ONNX and ONNX Runtime's operators. */
export function weightProduct(node: Node, constants: Constants): WeightProduct | undefined {
  const [data = '', second = ''] = node.input;
  const contrib = node.domain === 'com.microsoft';
  if (data === '' || constants.has(data)) return undefined;
  if (contrib && BLOCK_PRODUCTS.has(node.opType)) return blockProduct(node, constants);
  switch (node.opType) {
    case 'MatMul':
    case 'FusedMatMul':
      return matMul(node, constants);
    case 'Gemm':
    case 'FusedGemm':
      return gemm(node, constants);
    case 'MatMulInteger':
      // A(codes), B, A's zero point, B's zero point
      return codesProduct(node, second, constants, { gives: 'products', biased: false });
    case 'MatMulIntegerToFloat':
      // A(codes), B, A's scale, B's scale, A's zero point, B's zero point, bias
      return codesProduct(node, second, constants, { gives: 'rows', biased: (node.input[6] ?? '') !== '' });
    case 'QLinearMatMul':
      // A(codes), its scale and zero point, B, its scale and zero point, the result's scale and zero point
      return codesProduct(node, node.input[3] ?? '', constants, { gives: 'codes', biased: false });
    case 'DynamicQuantizeMatMul': {
      // A, B, B's scale, B's zero point, bias
      const biased = (node.input[4] ?? '') !== '';
      const product = codesProduct(node, second, constants, { gives: 'rows', biased });
      return product && { ...product, reads: 'rows', type: DataType.FLOAT };
    }
    default:
      return undefined;
  }
}

function matMul(node: Node, constants: Constants): WeightProduct | undefined {
  const [data = '', weight = ''] = node.input;
  const flags = ['transA', 'transBatchA', 'transBatchB'];
  if (flags.some((name) => (intAttribute(node, name) ?? 0) !== 0)) return undefined;
  return float(data, weight, constants, (intAttribute(node, 'transB') ?? 0) !== 0, {
    biased: false,
    rank2: false,
  });
}

function gemm(node: Node, constants: Constants): WeightProduct | undefined {
  const [data = '', weight = '', bias = ''] = node.input;
  if ((intAttribute(node, 'transA') ?? 0) !== 0 || (bias !== '' && !constants.has(bias))) return undefined;
  return float(data, weight, constants, (intAttribute(node, 'transB') ?? 0) !== 0, {
    biased: bias !== '' && floatAttribute(node, 'beta') !== 0,
    rank2: true,
  });
}

function float(
  data: string,
  weight: string,
  constants: Constants,
  transposed: boolean,
  rest: Pick<WeightProduct, 'biased' | 'rank2'>,
): WeightProduct | undefined {
  const info = constants.has(weight) ? constants.info(weight) : undefined;
  if (info === undefined || info.dims.length !== 2 || !isFloatType(info.dataType)) return undefined;
  const [inFeatures, outFeatures] = (transposed ? [...info.dims].reverse() : info.dims) as [number, number];
  return {
    data,
    reads: 'rows',
    gives: 'rows',
    inFeatures,
    outFeatures,
    type: info.dataType,
    quantised: info.quantised,
    ...rest,
  };
}

function codesProduct(
  node: Node,
  weight: string,
  constants: Constants,
  rest: Pick<WeightProduct, 'gives' | 'biased'>,
): WeightProduct | undefined {
  const dims = constants.has(weight) ? constants.info(weight)?.dims : undefined;
  if (dims?.length !== 2) return undefined;
  const [inFeatures, outFeatures] = dims as [number, number];
  return {
    data: node.input[0] ?? '',
    reads: 'codes',
    inFeatures,
    outFeatures,
    type: undefined,
    quantised: true,
    rank2: false,
    ...rest,
  };
}

function blockProduct(node: Node, constants: Constants): WeightProduct | undefined {
  const [data = '', , scales = '', ...others] = node.input;
  const inFeatures = intAttribute(node, 'K');
  const outFeatures = intAttribute(node, 'N');
  const rest = node.input.slice(1).filter((input) => input !== '');
  if (inFeatures === undefined || outFeatures === undefined) return undefined;
  if (!rest.every((input) => constants.has(input))) return undefined;
  const accuracyLevel = intAttribute(node, 'accuracy_level');
  const blockSize = intAttribute(node, 'block_size');
  return {
    data,
    reads: 'rows',
    gives: 'rows',
    inFeatures,
    outFeatures,
    type: constants.info(scales)?.dataType,
    // A, B, scales, zero points, group index, bias
    biased: node.opType === 'MatMulNBits' && (others[2] ?? '') !== '',
    quantised: true,
    rank2: false,
    ...(accuracyLevel === undefined ? {} : { accuracyLevel }),
    ...(blockSize === undefined ? {} : { blocks: { bits: intAttribute(node, 'bits') ?? 4, blockSize } }),
  };
}
