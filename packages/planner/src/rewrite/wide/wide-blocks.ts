import {
  decodeOffsets,
  encodeOffsets,
  layoutOfProduct,
  offsetLayout,
  type ProductBlocks,
} from '../../block-offsets/index.js';
import type { AffinePart } from '../../linear/affine.js';
import { readMatrix } from '../../linear/index.js';
import { DataType, intAttribute } from '../../onnx/index.js';
import { quantiseBlocks } from '../../quantise/index.js';
import { foldNorm } from './algebra.js';
import type { ConstantReader } from './constant-reader.js';
import type { WideMatrix, WidePiece } from './wide-matrix.js';

/**
 * How values are made of codes, block by block along the inputs:
 * - `symmetric`: `(code − 2^(bits−1)) · scale`
 * - `zero-points`: `(code − zero point) · scale`
 * - `offsets`: as `symmetric`, and a number for each block is added; `MatMulNBits` reads sums of the input's blocks for
 *   it (what this project makes of GGUF's Q4_1)
 */
export type BlockKind = 'symmetric' | 'zero-points' | 'offsets';

export interface BlockFormat {
  readonly bits: number;
  readonly blockSize: number;
  readonly kind: BlockKind;
}

/** A map's matrix as it is stored, by the names of its tensors. */
export interface StoredBlocks extends BlockFormat {
  /** `[outputs, blocks, blockSize · bits / 8]`; with offsets, the blocks of their digits too */
  readonly codes: string;
  /** `[outputs, blocks]`, in any shape */
  readonly scales: string;
  /** `[outputs, ⌈blocks · bits / 8⌉]` */
  readonly zeroPoints: string | undefined;
}

/** Reads how a map is stored; `undefined` where that is more than one matrix in blocks. */
export function storedBlocks(
  { nodes, inFeatures }: AffinePart,
  constants: ConstantReader,
): StoredBlocks | undefined {
  const products = nodes.filter(({ opType }) => opType === 'MatMulNBits');
  const [product] = products;
  if (product === undefined || products.length > 1) return undefined;
  const extended = nodes.some(({ opType }) => opType === 'Concat');
  const parts = extended ? WITH_SUMS : PARTS;
  if (nodes.some(({ opType }) => !parts.has(opType))) return undefined;
  const bits = intAttribute(product, 'bits') ?? 4;
  const blockSize = intAttribute(product, 'block_size') ?? 32;
  const [, codes = '', scales = '', zeroPoints = '', order = ''] = product.input;
  const stored = (name: string) => constants.model.graph.initializers.has(name);
  if (![codes, scales, ...(zeroPoints === '' ? [] : [zeroPoints])].every(stored) || order !== '')
    return undefined;
  // Zero points may be numbers of the scales' type; such are not codes.
  if (zeroPoints !== '' && constants.constants.info(zeroPoints)?.dataType !== DataType.UINT8)
    return undefined;
  const common = { bits, blockSize, codes, scales, zeroPoints: zeroPoints === '' ? undefined : zeroPoints };
  if (!extended) return { ...common, kind: zeroPoints !== '' ? 'zero-points' : 'symmetric' };
  const layout = layoutOfProduct(intAttribute(product, 'K') ?? 0, bits, blockSize);
  const fits = layout?.inFeatures === inFeatures && zeroPoints !== '';
  return fits && constants.constants.info(scales)?.dataType === DataType.FLOAT
    ? { ...common, kind: 'offsets' }
    : undefined;
}

const PARTS = new Set(['Add', 'MatMulNBits']);
const WITH_SUMS = new Set([...PARTS, 'Concat', 'Pad', 'ReduceSum', 'Reshape']);

export function sameFormat(a: BlockFormat, b: BlockFormat): boolean {
  return a.bits === b.bits && a.blockSize === b.blockSize && a.kind === b.kind;
}

/** A matrix in blocks, all tensors unpacked but the codes. */
export interface BlockMatrix {
  /** `[outputs, blocks, blockSize · bits / 8]` */
  readonly codes: Uint8Array;
  /** `[outputs, blocks]` */
  readonly scales: Float32Array;
  /** `[outputs, blocks]` */
  readonly zeroPoints: Uint8Array;
  /** `[outputs, blocks]` */
  readonly offsets: Float32Array;
}

/**
 * A wide matrix in blocks. Pieces that are stored in the same format, and need no folding, keep their codes; others are
 * folded in floating point and quantised once. Memory is that of the blocks, twice with offsets, and of one member's matrix.
 */
export class WideBlocks {
  #latest: Promise<ProductBlocks> | undefined;

  constructor(
    readonly matrix: WideMatrix,
    readonly format: BlockFormat & { readonly bits: 4 | 8 },
    readonly scaleType: 'float32' | 'float16',
    readonly constants: ConstantReader,
    /** What is stored as it is, by piece. */
    readonly kept: ReadonlyMap<WidePiece, StoredBlocks>,
  ) {}

  /**
   * As its product reads them.
   *
   * @param last whether nothing more will be asked of it: it is not held any longer then
   */
  async read(last: boolean): Promise<ProductBlocks> {
    this.#latest ??= this.#build().then((matrix) => this.#layOut(matrix));
    const found = await this.#latest;
    if (last) this.#latest = undefined;
    return found;
  }

  #layOut(matrix: BlockMatrix): ProductBlocks {
    const { inFeatures, outFeatures } = this.matrix.options;
    const { bits, blockSize, kind } = this.format;
    if (kind === 'offsets')
      return encodeOffsets(matrix, outFeatures, offsetLayout({ inFeatures, bits, blockSize }));
    return { ...matrix, zeroPoints: packZeroPoints(matrix.zeroPoints, inFeatures / blockSize, bits) };
  }

  async #build(): Promise<BlockMatrix> {
    const { inFeatures, outFeatures, pieces, shared } = this.matrix.options;
    const { blockSize } = this.format;
    const target = emptyBlocks(inFeatures / blockSize, outFeatures, this.format);
    for (const piece of pieces) {
      const { map, norm, columns, row = 0 } = piece;
      const stored = this.kept.get(piece);
      let part: BlockMatrix;
      if (stored !== undefined)
        part = await this.#stored(stored, map.inFeatures / blockSize, map.outFeatures);
      else {
        const found = await readMatrix(this.matrix.model, map, this.matrix.session);
        const plain = { inFeatures: map.inFeatures, outFeatures: map.outFeatures, ...found };
        part = quantise(
          norm === undefined ? plain : foldNorm(plain, norm, shared),
          this.format,
          this.scaleType,
        );
      }
      const runs = columns ?? [{ from: 0, width: map.outFeatures, at: 0 }];
      for (const run of runs) {
        copyBlocks(part, map.inFeatures / blockSize, target, inFeatures / blockSize, {
          ...run,
          block: row / blockSize,
          blob: (blockSize * this.format.bits) / 8,
        });
      }
    }
    return target;
  }

  async #stored(stored: StoredBlocks, blocks: number, outFeatures: number): Promise<BlockMatrix> {
    const { bits, kind } = stored;
    const { blockSize } = this.format;
    const made = emptyBlocks(blocks, outFeatures, this.format);
    const bytes = async (name: string) => (await this.constants.read(name)).bytes;
    const codes = await bytes(stored.codes);
    const scales = Float32Array.from(await this.constants.numbers(stored.scales));
    if (stored.zeroPoints === undefined) return { ...made, codes, scales };
    const zeroPoints = await bytes(stored.zeroPoints);
    if (kind === 'offsets') {
      const layout = offsetLayout({ inFeatures: blocks * blockSize, bits: this.format.bits, blockSize });
      return { ...made, ...decodeOffsets({ codes, scales, zeroPoints }, outFeatures, layout) };
    }
    unpackInto(made.zeroPoints, zeroPoints, blocks, bits);
    return { ...made, codes, scales };
  }
}

function emptyBlocks(blocks: number, outFeatures: number, { bits, blockSize }: BlockFormat): BlockMatrix {
  return {
    codes: new Uint8Array((outFeatures * blocks * blockSize * bits) / 8),
    scales: new Float32Array(outFeatures * blocks),
    zeroPoints: new Uint8Array(outFeatures * blocks).fill(2 ** (bits - 1)),
    offsets: new Float32Array(outFeatures * blocks),
  };
}

function copyBlocks(
  from: BlockMatrix,
  fromBlocks: number,
  to: BlockMatrix,
  toBlocks: number,
  place: {
    readonly from: number;
    readonly width: number;
    readonly at: number;
    readonly block: number;
    readonly blob: number;
  },
): void {
  const { blob, block } = place;
  for (let i = 0; i < place.width; i++) {
    const source = (place.from + i) * fromBlocks;
    const target = (place.at + i) * toBlocks + block;
    to.codes.set(from.codes.subarray(source * blob, (source + fromBlocks) * blob), target * blob);
    to.scales.set(from.scales.subarray(source, source + fromBlocks), target);
    to.zeroPoints.set(from.zeroPoints.subarray(source, source + fromBlocks), target);
    to.offsets.set(from.offsets.subarray(source, source + fromBlocks), target);
  }
}

/** Quantises once: by the largest magnitude, or by least and greatest value where blocks have an offset. */
function quantise(
  {
    weight,
    inFeatures,
    outFeatures,
  }: { readonly weight: Float32Array; readonly inFeatures: number; readonly outFeatures: number },
  { bits, blockSize, kind }: BlockFormat & { readonly bits: 4 | 8 },
  scaleType: 'float32' | 'float16',
): BlockMatrix {
  const blocks = inFeatures / blockSize;
  const made = emptyBlocks(blocks, outFeatures, { bits, blockSize, kind });
  if (kind !== 'offsets') {
    const { codes, scales } = quantiseBlocks(weight, { inFeatures, outFeatures, bits, blockSize, scaleType });
    return { ...made, codes, scales };
  }
  const last = 2 ** bits - 1;
  const blob = (blockSize * bits) / 8;
  for (let block = 0; block < blocks; block++) {
    for (let j = 0; j < outFeatures; j++) {
      let [least, greatest] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
      for (let k = block * blockSize; k < (block + 1) * blockSize; k++) {
        const value = weight[k * outFeatures + j] as number;
        least = Math.min(least, value);
        greatest = Math.max(greatest, value);
      }
      const scale = Math.fround((greatest - least) / last);
      const at = j * blocks + block;
      made.scales[at] = scale;
      made.offsets[at] = least + 2 ** (bits - 1) * scale;
      for (let i = 0; i < blockSize; i++) {
        const value = weight[(block * blockSize + i) * outFeatures + j] as number;
        const code = scale === 0 ? 0 : Math.max(0, Math.min(last, Math.round((value - least) / scale)));
        const place = at * blob + (bits === 8 ? i : i >> 1);
        made.codes[place] = (made.codes[place] as number) | (bits === 8 ? code : code << (4 * (i & 1)));
      }
    }
  }
  return made;
}

/** Codes of less than a byte, the first in the low bits; each output's begin with a byte of their own. */
function unpackInto(target: Uint8Array, packed: Uint8Array, blocks: number, bits: number): void {
  const perOutput = Math.ceil((blocks * bits) / 8);
  for (let i = 0; i < target.length; i++) {
    const [output, block] = [Math.floor(i / blocks), i % blocks];
    const byte = packed[output * perOutput + Math.floor((block * bits) / 8)] as number;
    target[i] = bits === 8 ? byte : (byte >> ((block * bits) % 8)) & (2 ** bits - 1);
  }
}

function packZeroPoints(zeroPoints: Uint8Array, blocks: number, bits: number): Uint8Array {
  const outputs = zeroPoints.length / blocks;
  const perOutput = Math.ceil((blocks * bits) / 8);
  const packed = new Uint8Array(outputs * perOutput);
  for (let i = 0; i < zeroPoints.length; i++) {
    const [output, block] = [Math.floor(i / blocks), i % blocks];
    const at = output * perOutput + Math.floor((block * bits) / 8);
    packed[at] = (packed[at] as number) | ((zeroPoints[i] as number) << ((block * bits) % 8));
  }
  return packed;
}
