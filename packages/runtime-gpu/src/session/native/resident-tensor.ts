import { InferenceError } from '../../errors.js';
import { elementCount, type TensorValue } from '../../tensor/types.js';
import type { Pointer } from './api.js';
import { arrayOver, byteLength, elementCode, type PlainType, plainType } from './element-types.js';
import { check, type OrtLibrary } from './library.js';

interface Handle {
  readonly library: OrtLibrary;
  readonly value: Pointer;
}

/** The net under `dispose`: a value whose last JavaScript reference went is released. */
const abandoned = new FinalizationRegistry<Handle>(({ library, value }) => library.api.ReleaseValue(value));

/**
 * A tensor that ONNX Runtime holds on to from run to run (an `OrtValue`): as an input it is read where it lies, as an
 * output it is written there. Two names of one run may share one: that is how a cache is extended in place.
 */
export class ResidentTensor {
  readonly type: PlainType;
  readonly dims: readonly number[];
  readonly #handle: Handle;
  /** The memory behind it where that is ours: it must live as long as the value does. */
  readonly #memory: ArrayBufferView | undefined;
  #disposed = false;

  private constructor(
    handle: Handle,
    type: PlainType,
    dims: readonly number[],
    memory: ArrayBufferView | undefined,
  ) {
    this.type = type;
    this.dims = dims;
    this.#handle = handle;
    this.#memory = memory;
    abandoned.register(this, handle, this);
  }

  /**
   * A tensor over the memory of `tensor`, which is shared and not copied.
   * @throws InferenceError `INPUT_TYPE` for strings, `INPUT_SHAPE` when the elements do not fill the shape
   */
  static over(library: OrtLibrary, tensor: TensorValue, name = 'tensor'): ResidentTensor {
    if (tensor.type === 'string') {
      throw new InferenceError('INPUT_TYPE', `The tensor for "${name}" holds strings.`, {
        expected: 'numbers',
        found: 'strings',
      });
    }
    const bytes = byteLength(tensor.type, elementCount(tensor.dims));
    if (tensor.data.byteLength !== bytes) {
      throw new InferenceError('INPUT_SHAPE', `The tensor for "${name}" does not fill its shape.`, {
        expected: `${bytes} bytes for [${tensor.dims.join(', ')}]`,
        found: `${tensor.data.byteLength} bytes`,
      });
    }
    // Asking for the buffer moves the elements of a very small array out of the JavaScript heap, where they might move.
    const memory = tensor.data.buffer.byteLength === 0 ? new Uint8Array(8) : tensor.data;
    const out = new BigUint64Array(1);
    const dims = BigInt64Array.from(tensor.dims, BigInt);
    check(
      library.api,
      library.api.CreateTensorWithDataAsOrtValue(
        library.mainMemory,
        memory,
        bytes,
        dims.length === 0 ? null : dims,
        dims.length,
        elementCode(tensor.type),
        out,
      ),
    );
    return new ResidentTensor({ library, value: out[0]! }, tensor.type, tensor.dims, memory);
  }

  /**
   * Takes over a value that ONNX Runtime made.
   * @throws InferenceError `OUTPUT_TYPE` for elements that JavaScript cannot hold; the value is released then
   */
  static adopt(library: OrtLibrary, value: Pointer, name: string): ResidentTensor {
    const { api } = library;
    const out = new BigUint64Array(1);
    check(api, api.GetTensorTypeAndShape(value, out));
    const info = out[0]!;
    try {
      const code = new Int32Array(2);
      check(api, api.GetTensorElementType(info, code));
      check(api, api.GetDimensionsCount(info, out));
      const dims = new BigInt64Array(Math.max(1, Number(out[0])));
      const rank = Number(out[0]);
      check(api, api.GetDimensions(info, dims, rank));
      const type = plainType(code[0]!);
      if (type === undefined) {
        throw new InferenceError('OUTPUT_TYPE', `"${name}" has elements that JavaScript cannot hold.`, {
          expected: 'numbers or booleans',
          found: `ONNX element type ${code[0]}`,
        });
      }
      return new ResidentTensor({ library, value }, type, [...dims.subarray(0, rank)].map(Number), undefined);
    } catch (error) {
      api.ReleaseValue(value);
      throw error;
    } finally {
      api.ReleaseTensorTypeAndShapeInfo(info);
    }
  }

  /** The `OrtValue`. @throws InferenceError `TENSOR_DISPOSED` */
  get value(): Pointer {
    this.#assertAlive();
    return this.#handle.value;
  }

  /** A copy of the elements. @throws InferenceError `TENSOR_DISPOSED` */
  copy(): TensorValue {
    this.#assertAlive();
    const bytes = byteLength(this.type, elementCount(this.dims));
    return this.#tensor(bytes === 0 ? new ArrayBuffer(0) : this.#mapped(bytes).slice(0));
  }

  /**
   * The elements where they lie, without copying, in exchange for the tensor: it counts as disposed, and its memory
   * goes when the last array over it goes.
   */
  release(): TensorValue {
    this.#assertAlive();
    if (this.#memory !== undefined) {
      this.dispose();
      return { type: this.type, dims: this.dims, data: this.#memory } as TensorValue;
    }
    this.#disposed = true;
    abandoned.unregister(this);
    const { library, value } = this.#handle;
    const bytes = byteLength(this.type, elementCount(this.dims));
    if (bytes === 0) {
      library.api.ReleaseValue(value);
      return this.#tensor(new ArrayBuffer(0));
    }
    const buffer = this.#mapped(bytes);
    abandoned.register(buffer, this.#handle);
    return this.#tensor(buffer);
  }

  /** Frees the value; may be called more than once. Memory that was given stays with its owner. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    abandoned.unregister(this);
    this.#handle.library.api.ReleaseValue(this.#handle.value);
  }

  /** Keeps the memory from being collected while a run that was started with it goes on. */
  get memory(): ArrayBufferView | undefined {
    return this.#memory;
  }

  #mapped(bytes: number): ArrayBuffer {
    const { library, value } = this.#handle;
    const out = new BigUint64Array(1);
    check(library.api, library.api.GetTensorMutableData(value, out));
    return library.ffi.view(out[0]!, bytes);
  }

  #tensor(buffer: ArrayBuffer): TensorValue {
    return { type: this.type, dims: this.dims, data: arrayOver(this.type, buffer) } as TensorValue;
  }

  #assertAlive(): void {
    if (!this.#disposed) return;
    throw new InferenceError('TENSOR_DISPOSED', 'The tensor was disposed.', {
      expected: 'a tensor in use',
      hint: 'Keep it until the last run that needs it has ended.',
    });
  }
}
