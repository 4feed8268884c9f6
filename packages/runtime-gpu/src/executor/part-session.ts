import type { Pointer } from '../session/native/api.js';
import { callAsync, check, type OrtLibrary } from '../session/native/library.js';
import { type NameList, nameList } from '../session/native/name-list.js';
import { createSessionOptions } from '../session/native/session-options.js';
import { readBorder } from '../session/native/value-infos.js';
import { loadError } from '../session/ort-errors.js';
import type { SessionOptions, ValueInfo } from '../session/types.js';

/** A part of a model as ONNX Runtime holds it: what a thread needs to run it by pointers alone. */
export class PartSession {
  private constructor(
    readonly library: OrtLibrary,
    readonly session: Pointer,
    readonly inputs: readonly ValueInfo[],
    readonly outputs: readonly ValueInfo[],
    readonly inputNames: NameList,
    readonly outputNames: NameList,
  ) {}

  /**
   * @param label what the part is called in errors
   * @param bytes the part's graph
   * @throws InferenceError `MODEL_LOAD_FAILED`
   */
  static async open(
    library: OrtLibrary,
    label: string,
    bytes: Uint8Array,
    options: SessionOptions,
  ): Promise<PartSession> {
    const { api, environment } = library;
    const out = new BigUint64Array(1);
    try {
      const settings = createSessionOptions(library, options);
      try {
        check(
          api,
          await callAsync(api.CreateSessionFromArray, environment, bytes, bytes.byteLength, settings, out),
        );
      } finally {
        api.ReleaseSessionOptions(settings);
      }
      const session = out[0]!;
      try {
        const { inputs, outputs } = readBorder(library, session);
        const names = (infos: readonly ValueInfo[]) =>
          nameList(
            library,
            infos.map(({ name }) => name),
          );
        return new PartSession(library, session, inputs, outputs, names(inputs), names(outputs));
      } catch (error) {
        api.ReleaseSession(session);
        throw error;
      }
    } catch (error) {
      throw loadError(label, error);
    }
  }

  /** Frees it; no run may go on. */
  release(): void {
    this.library.api.ReleaseSession(this.session);
  }
}
