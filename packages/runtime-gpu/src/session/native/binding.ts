import { checkFeed, checkNoUnknown } from '../checks.js';
import type { ValueInfo } from '../types.js';
import type { NameList } from './name-list.js';
import { ResidentTensor } from './resident-tensor.js';

/** Where an output goes: into memory that ONNX Runtime makes (`tensor`), or into memory that was given. */
export type OutputTarget = 'tensor' | ResidentTensor;

/** What many runs of a session have in common: inputs that stay where they are, and where outputs go. */
export class Binding {
  /** Inputs that each run gives, and their places among all. */
  readonly open: readonly ValueInfo[];
  readonly openAt: readonly number[];
  readonly fetches: readonly string[];
  /** Places of the outputs that ONNX Runtime makes memory for. */
  readonly madeAt: readonly number[];
  /** `OrtValue*` of what is bound, 0 elsewhere. */
  readonly inputValues: BigUint64Array;
  readonly outputValues: BigUint64Array;
  readonly outputNames: NameList;
  /** Keeps what the pointers point to. */
  readonly bound: readonly ResidentTensor[];

  /** @throws InferenceError `INPUT_UNKNOWN`, `INPUT_TYPE`, `INPUT_SHAPE`, `TENSOR_DISPOSED` */
  constructor(
    inputs: readonly ValueInfo[],
    feeds: Readonly<Record<string, ResidentTensor>>,
    outputs: Readonly<Record<string, OutputTarget>>,
    outputNames: NameList,
  ) {
    checkNoUnknown(inputs, feeds);
    const open: ValueInfo[] = [];
    const openAt: number[] = [];
    const bound: ResidentTensor[] = [];
    this.inputValues = new BigUint64Array(Math.max(1, inputs.length));
    inputs.forEach((input, at) => {
      const feed = feeds[input.name];
      if (feed === undefined) {
        open.push(input);
        openAt.push(at);
        return;
      }
      checkFeed(input, feed);
      this.inputValues[at] = feed.value;
      bound.push(feed);
    });
    this.fetches = Object.keys(outputs);
    this.outputValues = new BigUint64Array(Math.max(1, this.fetches.length));
    const madeAt: number[] = [];
    this.fetches.forEach((name, at) => {
      const target = outputs[name]!;
      if (target instanceof ResidentTensor) {
        this.outputValues[at] = target.value;
        bound.push(target);
      } else {
        madeAt.push(at);
      }
    });
    this.open = open;
    this.openAt = openAt;
    this.madeAt = madeAt;
    this.outputNames = outputNames;
    this.bound = bound;
  }
}
