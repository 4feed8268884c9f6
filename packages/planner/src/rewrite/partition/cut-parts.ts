import { create } from '@bufbuild/protobuf';
import { AnatomyError } from '@cqil/core';
import type { ElementType, PartitionPart, SessionOptions, ValueInfo } from '@cqil/runtime-gpu';
import { type CutInput, SubmodelCutter } from '../../onnx/extract.js';
import { ValueInfoProtoSchema } from '../../onnx/gen/onnx_pb.js';
import { DataType, type Model } from '../../onnx/index.js';
import { withVariant } from '../../variant/index.js';
import type { Layout, PlannedPart } from './layout.js';

/** A part as a graph of its own, and what it reads and gives. */
export interface CutPart {
  readonly part: Omit<PartitionPart, 'file'>;
  readonly model: Model;
}

export interface CutParts {
  readonly parts: readonly CutPart[];
  /** Shapes of the values that go from part to part, as ONNX Runtime infers them. */
  readonly shapes: Readonly<Record<string, readonly (number | string)[]>>;
}

const DATA_TYPES: Partial<Record<ElementType, number>> = {
  float32: DataType.FLOAT,
  float16: DataType.FLOAT16,
  float64: DataType.DOUBLE,
  int64: DataType.INT64,
  int32: DataType.INT32,
  bool: DataType.BOOL,
};

/**
 * Cuts a graph into the parts of a layout. Parts share weights with the graph; each gives just what another part reads,
 * and the outputs of the whole graph that it computes.
 *
 * @throws ModelFormatError `ONNX_CUT`; AnatomyError `PARTITION_VALUE_TYPE`; what `openSession` throws
 */
export async function cutParts(
  model: Model,
  { parts: planned }: Layout,
  session: SessionOptions,
): Promise<CutParts> {
  const values = await inferred(model, [...new Set(planned.flatMap(({ provides }) => provides))], session);
  const cutter = new Cutter(model, planned, values);
  const whole = wholeOutputs(model, cutter);
  const wanted = new Map<PlannedPart, Set<string>>(planned.map((part) => [part, new Set(whole.get(part))]));
  const made: CutPart[] = [];
  // From the last to the first: by its turn, what others want of a part is known.
  for (const part of [...planned].reverse()) {
    const own = wanted.get(part)!;
    const outputs = [...part.provides.filter((name) => own.has(name)), ...(whole.get(part) ?? [])];
    if (outputs.length === 0) continue;
    const cut = cutter.cut(part, outputs);
    const inputs = cut.graph.feeds.map(({ name }) => {
      const from = cutter.provider(part, name);
      if (from !== undefined) wanted.get(from)!.add(name);
      return from === undefined ? { name } : { name, from: from.name };
    });
    const { name, holds, devices } = part;
    made.push({ part: { name, holds, devices: [...devices], inputs, outputs }, model: cut });
  }
  const crossing = new Set(made.flatMap(({ part }) => part.inputs.flatMap((i) => (i.from ? [i.name] : []))));
  return {
    parts: made.reverse(),
    shapes: Object.fromEntries(
      [...crossing]
        .sort()
        .map((name) => [name, values.get(name)!.shape] as const)
        .filter(([, shape]) => shape.length > 0 && shape.every((dim) => dim !== '')),
    ),
  };
}

class Cutter {
  readonly #cutter: SubmodelCutter;

  constructor(
    model: Model,
    readonly parts: readonly PlannedPart[],
    readonly values: ReadonlyMap<string, ValueInfo>,
  ) {
    this.#cutter = new SubmodelCutter(model);
  }

  cut(part: PlannedPart, outputs: readonly string[]): Model {
    const earlier = this.parts.filter(({ stage }) => stage < part.stage).flatMap(({ provides }) => provides);
    const own = new Set(part.provides);
    const cuts = [...new Set(earlier)].filter((name) => !own.has(name));
    const made = this.#cutter.cut(
      cuts.map((name) => cutInput(this.values.get(name)!)),
      outputs,
    );
    for (const { name, type } of made.graph.inputs) {
      const shape = cuts.includes(name) ? this.values.get(name)!.shape : undefined;
      // A scalar's shape and one that is not known look alike.
      if (shape?.length === 0 && type?.value.case === 'tensorType') delete type.value.value.shape;
    }
    return made;
  }

  /** Where a part takes a value from: from its own device where that has it, else from the first that does. */
  provider(part: PlannedPart, name: string): PlannedPart | undefined {
    const makers = this.parts.filter(({ stage, provides }) => stage < part.stage && provides.includes(name));
    return makers.find(({ devices }) => devices[0] === part.devices[0]) ?? makers[0];
  }
}

function cutInput({ name, elementType, shape }: ValueInfo): CutInput {
  const dataType = DATA_TYPES[elementType];
  if (dataType !== undefined) return { name, dataType, shape };
  throw new AnatomyError('PARTITION_VALUE_TYPE', `"${name}" cannot go from one part to another.`, {
    expected: Object.keys(DATA_TYPES).join(', '),
    found: elementType,
  });
}

/** Which part gives which outputs of the whole graph: the first that computes them anyway, else the last part. */
function wholeOutputs(model: Model, cutter: Cutter): Map<PlannedPart, string[]> {
  const { parts } = cutter;
  const last = parts.at(-1) as PlannedPart;
  const found = new Map<PlannedPart, string[]>();
  const computes = parts.map((part) => {
    const values = part.provides.length === 0 ? [] : cutter.cut(part, part.provides).graph.nodes;
    return new Set(values.flatMap((node) => node.output));
  });
  for (const { name } of model.graph.outputs) {
    const part = parts[computes.findIndex((values) => values.has(name))] ?? last;
    found.set(part, [...(found.get(part) ?? []), name]);
  }
  return found;
}

/** Element types and shapes of inner values, as ONNX Runtime infers them. */
async function inferred(
  model: Model,
  names: readonly string[],
  options: SessionOptions,
): Promise<Map<string, ValueInfo>> {
  const variant = model.clone();
  const known = new Set(variant.graph.outputs.map(({ name }) => name));
  for (const name of names)
    if (!known.has(name)) variant.graph.outputs.push(create(ValueInfoProtoSchema, { name }));
  return withVariant(
    variant,
    { ...options, graphOptimization: 'disabled' },
    async ({ outputs }) => new Map(outputs.map((info) => [info.name, info])),
  );
}
