import { InferenceError } from '../../errors.js';
import { elementCount, type TensorValue } from '../../tensor/types.js';
import type { Pointer } from './api.js';
import { byteLength, elementCode, type PlainType } from './element-types.js';
import { check, type OrtLibrary } from './library.js';

interface Handle {
  readonly library: OrtLibrary;
  readonly value: Pointer;
}

/** The net under `dispose`: a value whose last JavaScript reference went is released. */
const abandoned = new FinalizationRegistry<Handle>(({ library, value }) => library.api.ReleaseValue(value));

/**
 * Memory of ours that ONNX Runtime knows as a tensor from run to run (an `OrtValue`): as an input it is read where it
 * lies, as an output it is written there. Two names of one run may share one: that is how a cache is extended in place.
 */
export class ResidentTensor {
  readonly type: PlainType;
  readonly dims: readonly number[];
  readonly #handle: Handle;
  /** Lives as long as the value does. */
  readonly memory: ArrayBufferView;
  #disposed = false;

  private constructor(handle: Handle, type: PlainType, dims: readonly number[], memory: ArrayBufferView) {
    this.type = type;
    this.dims = dims;
    this.#handle = handle;
    this.memory = memory;
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

  /** The `OrtValue`. @throws InferenceError `TENSOR_DISPOSED` */
  get value(): Pointer {
    this.#assertAlive();
    return this.#handle.value;
  }

  get disposed(): boolean {
    return this.#disposed;
  }

  /** Frees the value; may be called more than once. The memory stays with its owner. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    abandoned.unregister(this);
    this.#handle.library.api.ReleaseValue(this.#handle.value);
  }

  #assertAlive(): void {
    if (!this.#disposed) return;
    throw new InferenceError('TENSOR_DISPOSED', 'The tensor was disposed.', {
      expected: 'a tensor in use',
      hint: 'Keep it until the last run that needs it has ended.',
    });
  }
}
