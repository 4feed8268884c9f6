import { CqilError } from '@cqil/core';
import type { Dataflow } from '../../../anatomy/dataflow.js';
import type { Constants } from '../../../linear/constants.js';
import { DataType, type Model, type Node, shapeOf } from '../../../onnx/index.js';
import type { ConstantValues } from '../constant-values.js';
import { Refused } from '../types.js';
import type { Probe, Situation } from './probe.js';

/** `joined = Concat(past, added)` along the sequence. */
export interface CacheStep {
  /** The graph input. */
  readonly input: string;
  /** The graph input, perhaps in another type. */
  readonly past: string;
  readonly added: string;
  /** The graph output, perhaps in another type. */
  readonly joined: string;
  readonly node: Node;
}

export interface GraphFacts {
  readonly model: Model;
  readonly dataflow: Dataflow;
  readonly constants: Constants;
  readonly values: ConstantValues;
  readonly types: ReadonlyMap<string, number>;
  readonly probe: Probe;
}

/** A prompt of two sequences behind a cache, one of them padded; without padding where there is no mask. */
export function usualSituation({ probe }: GraphFacts): Situation {
  const batches = typeof shapeOf(tokensInfo(probe))?.[0] !== 'number';
  const padding = probe.roles.mask === undefined ? [0, 0] : [0, 2];
  return { past: 3, seq: 4, padding: batches ? padding : padding.slice(0, 1) };
}

function tokensInfo({ model, anatomy }: Probe) {
  return model.graph.inputs.find(({ name }) => name === anatomy.tokens) as Model['graph']['inputs'][number];
}

export function tolerance(facts: GraphFacts, value: string): number {
  return facts.types.get(value) === DataType.FLOAT16 ? 8e-3 : 2e-5;
}

export function refuse(node: string, expected: string, found: string): Refused {
  return new Refused({ node, expected, found });
}

/** Runs a part; one that ONNX Runtime does not run on these shapes is not what was looked for. */
export async function ran<T>(node: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    if (!(error instanceof CqilError)) throw error;
    const message = error.message.split('\n')[0] ?? '';
    throw refuse(node, 'a part that can be run by itself', message);
  }
}
