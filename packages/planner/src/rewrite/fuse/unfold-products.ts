import { CqilError } from '@cqil/core';
import { analyze } from '../../anatomy/index.js';
import { describeNode, floatAttribute, intAttribute, makeNode, type Node } from '../../onnx/index.js';
import { GraphEdit } from '../graph-edit.js';
import { Probe, type Situation } from './attention/probe.js';
import { filled } from './attention/reference.js';
import { elementTypes } from './element-types.js';
import { type FusePass, Refused, Tally } from './types.js';

const SITUATION: Situation = { past: 0, seq: 3, padding: [0, 0] };

/**
 * `Reshape` to rows, `Gemm`, `Reshape` back (GPT-2's and OPT's products, with the arithmetic of their shapes) → `MatMul`
 * and `Add`, which take batches as they are.
 */
export const unfoldProducts: FusePass = async ({ model, names, options }) => {
  const tally = new Tally('products');
  const { graph } = model;
  const gemms = graph.nodes.filter(({ opType, domain }) => opType === 'Gemm' && domain === '');
  if (gemms.length === 0) return tally.report();
  const anatomy = analyze(model);
  const probe = new Probe(model, anatomy, elementTypes(graph), options.session ?? {});
  const edit = new GraphEdit(graph);
  const producers = graph.producers();
  const consumers = graph.consumers();
  for (const gemm of gemms) {
    options.signal?.throwIfAborted();
    await tally.attempt(async () => {
      const node = describeNode(gemm);
      const [folded = '', weight = '', bias = ''] = gemm.input;
      const plain =
        (intAttribute(gemm, 'transA') ?? 0) === 0 &&
        isOne(gemm, 'alpha') &&
        (bias === '' || isOne(gemm, 'beta'));
      const transposed = (intAttribute(gemm, 'transB') ?? 0) !== 0;
      const dims = graph.initializers.get(weight)?.dims ?? [];
      if (!plain || dims.length !== 2 || (bias !== '' && graph.initializers.get(bias)?.dims.length !== 1)) {
        throw refused(node, 'a product with a weight and a bias `[features]`', 'another one');
      }
      const [inFeatures, outFeatures] = (transposed ? [...dims].reverse() : dims) as [number, number];
      const before = producers.get(folded);
      if (before?.opType !== 'Reshape')
        throw refused(node, 'a Reshape to rows before it', before?.opType ?? 'an input');
      const readers = consumers.get(gemm.output[0] ?? '') ?? [];
      const [after] = readers;
      if (after?.opType !== 'Reshape' || readers.length > 1) {
        throw refused(
          node,
          'one Reshape behind it',
          readers.map(({ opType }) => opType).join(', ') || 'nothing',
        );
      }
      const [input = ''] = before.input;
      const [output = ''] = after.output;
      const shape = await shapeBehind(probe, anatomy.streamStart, input, inFeatures, output);
      const wanted = [SITUATION.padding.length, SITUATION.seq, outFeatures];
      if (shape?.join() !== wanted.join()) {
        throw refused(
          describeNode(after),
          `a Reshape back to [${wanted.join(', ')}] for a batch of two sequences of three`,
          `[${shape?.join(', ') ?? 'a part that cannot be run by itself'}]`,
        );
      }
      edit.replace(after, matMul(gemm, { input, output, weight, bias, transposed }, names.fresh.bind(names)));
    });
  }
  edit.apply();
  return tally.report();
};

async function shapeBehind(
  probe: Probe,
  stream: string,
  input: string,
  width: number,
  output: string,
): Promise<readonly number[] | undefined> {
  const given = { [input]: filled([SITUATION.padding.length, SITUATION.seq, width], 0) };
  try {
    const found = await probe.with(
      stream,
      [input],
      [output],
      { hidden: width, rank: { [input]: 3 } },
      (run) => run(SITUATION, given),
    );
    return found[output]?.dims;
  } catch (error) {
    if (error instanceof CqilError) return undefined;
    throw error;
  }
}

function matMul(
  gemm: Node,
  {
    input,
    output,
    weight,
    bias,
    transposed,
  }: { input: string; output: string; weight: string; bias: string; transposed: boolean },
  fresh: (wanted: string) => string,
): Node[] {
  const prefix = gemm.name || output;
  const nodes: Node[] = [];
  let matrix = weight;
  if (transposed) {
    matrix = fresh(`${weight}.transposed`);
    nodes.push(
      makeNode('Transpose', [weight], [matrix], {
        name: fresh(`${prefix}/Transpose`),
        attributes: { perm: { ints: [1, 0] } },
      }),
    );
  }
  const product = bias === '' ? output : fresh(`${prefix}/MatMul_output_0`);
  nodes.push(makeNode('MatMul', [input, matrix], [product], { name: fresh(`${prefix}/MatMul`) }));
  if (bias !== '') nodes.push(makeNode('Add', [product, bias], [output], { name: fresh(`${prefix}/Add`) }));
  return nodes;
}

function isOne(gemm: Node, name: string): boolean {
  return (floatAttribute(gemm, name) ?? 1) === 1;
}

function refused(node: string, expected: string, found: string): Refused {
  return new Refused({ node, expected, found });
}
