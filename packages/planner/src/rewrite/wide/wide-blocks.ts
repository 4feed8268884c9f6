import type { AffinePart } from '../../linear/affine.js';
import { readMatrix } from '../../linear/index.js';
import { intAttribute } from '../../onnx/index.js';
import { quantiseBlocks } from '../../quantise/index.js';
import { foldNorm } from './algebra.js';
import type { ConstantReader } from './constant-reader.js';
import type { WideMatrix, WidePiece } from './wide-matrix.js';

/**
 * How values are made of codes, block by block along the inputs:
 * - `symmetric`: `(code − 2^(bits−1)) · scale`
 * - `zero-points`: `(code − zero point) · scale`
 * - `offsets`: as `symmetric`, and a number for each block is added; a product with sums of the input's blocks stands
 *   beside `MatMulNBits` for it (what this project makes of GGUF's Q4_1)
 */
export type BlockKind = 'symmetric' | 'zero-points' | 'offsets';

export interface BlockFormat {
  readonly bits: number;
  readonly blockSize: number;
  readonly kind: BlockKind;
}

/** A map's matrix as it is stored, by the names of its tensors. */
export interface StoredBlocks extends BlockFormat {
  /** `[outputs, blocks, blockSize · bits / 8]` */
  readonly codes: string;
  /** `[outputs, blocks]`, in any shape */
  readonly scales: string;
  /** `[outputs, ⌈blocks · bits / 8⌉]` */
  readonly zeroPoints: string | undefined;
  /** `[blocks, outputs]` */
  readonly offsets: string | undefined;
}

/** Reads how a map is stored; `undefined` where that is more than one matrix in blocks. */
export function storedBlocks({ nodes }: AffinePart, constants: ConstantReader): StoredBlocks | undefined {
  const products = nodes.filter(({ opType }) => opType === 'MatMulNBits');
  const [product] = products;
  if (product === undefined || products.length > 1 || nodes.some(({ opType }) => !PARTS.has(opType)))
    return undefined;
  const bits = intAttribute(product, 'bits') ?? 4;
  const [, codes = '', scales = '', zeroPoints = '', order = ''] = product.input;
  const stored = (name: string) => constants.model.graph.initializers.has(name);
  if (![codes, scales, ...(zeroPoints === '' ? [] : [zeroPoints])].every(stored) || order !== '')
    return undefined;
  const sums = nodes.filter(({ opType }) => opType === 'MatMul');
  const offsets = sums[0]?.input.find(stored);
  if (sums.length > 1 || (sums.length === 1) !== nodes.some(({ opType }) => opType === 'ReduceSum'))
    return undefined;
  if (sums.length === 1 && (offsets === undefined || zeroPoints !== '')) return undefined;
  // Zero points may be numbers of the scales' type; such are not codes.
  if (zeroPoints !== '' && constants.constants.info(zeroPoints)?.dataType !== UINT8) return undefined;
  return {
    bits,
    blockSize: intAttribute(product, 'block_size') ?? 32,
    kind: offsets !== undefined ? 'offsets' : zeroPoints !== '' ? 'zero-points' : 'symmetric',
    codes,
    scales,
    zeroPoints: zeroPoints === '' ? undefined : zeroPoints,
    offsets,
  };
}

const PARTS = new Set(['Add', 'MatMul', 'MatMulNBits', 'ReduceSum', 'Reshape']);
const UINT8 = 2;

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
  /** `[blocks, outputs]` */
  readonly offsets: Float32Array;
}

/**
 * A wide matrix in blocks. Pieces that are stored in the same format, and need no folding, keep their codes; others are
 * folded in floating point and quantised once. Memory is that of the blocks and of one member's matrix.
 */
export class WideBlocks {
  #latest: Promise<BlockMatrix> | undefined;

  constructor(
    readonly matrix: WideMatrix,
    readonly format: BlockFormat & { readonly bits: 4 | 8 },
    readonly scaleType: 'float32' | 'float16',
    readonly constants: ConstantReader,
    /** What is stored as it is, by piece. */
    readonly kept: ReadonlyMap<WidePiece, StoredBlocks>,
  ) {}

  /** @param last whether nothing more will be asked of it: it is not held any longer then */
  async read(last: boolean): Promise<BlockMatrix> {
    this.#latest ??= this.#build();
    const found = await this.#latest;
    if (last) this.#latest = undefined;
    return found;
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
        copyBlocks(
          part,
          map.inFeatures / blockSize,
          map.outFeatures,
          target,
          inFeatures / blockSize,
          outFeatures,
          {
            ...run,
            block: row / blockSize,
            blob: (blockSize * this.format.bits) / 8,
          },
        );
      }
    }
    return target;
  }

  async #stored(stored: StoredBlocks, blocks: number, outFeatures: number): Promise<BlockMatrix> {
    const floats = async (name: string) => Float32Array.from(await this.constants.numbers(name));
    const zeroPoints = emptyBlocks(blocks, outFeatures, this.format).zeroPoints;
    if (stored.zeroPoints !== undefined) {
      unpackInto(zeroPoints, (await this.constants.read(stored.zeroPoints)).bytes, blocks, stored.bits);
    }
    return {
      codes: (await this.constants.read(stored.codes)).bytes,
      scales: await floats(stored.scales),
      zeroPoints,
      offsets:
        stored.offsets === undefined ? new Float32Array(blocks * outFeatures) : await floats(stored.offsets),
    };
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
  fromOutputs: number,
  to: BlockMatrix,
  toBlocks: number,
  toOutputs: number,
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
  }
  for (let k = 0; k < fromBlocks; k++) {
    const start = k * fromOutputs + place.from;
    to.offsets.set(from.offsets.subarray(start, start + place.width), (block + k) * toOutputs + place.at);
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
      made.offsets[block * outFeatures + j] = least + 2 ** (bits - 1) * scale;
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

export function packZeroPoints(zeroPoints: Uint8Array, blocks: number, bits: number): Uint8Array {
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
