import { DataType, type Model, makeNode, makeValueInfo, type NodeOptions, Tensor } from '../onnx/index.js';

/** Next token of each position, int64, `[rows, positions, 1]`. */
export const TARGETS_INPUT = '/cqil/score/targets';
/** −ln p of the next token, `[rows, positions]`. */
export const LOSS_OUTPUT = '/cqil/score/loss';
/** KL(row 0 ‖ row k) for k from 1, nats, `[rows − 1, positions]`. */
export const KL_OUTPUT = '/cqil/score/kl';
/** Whether row 0's best token is a best one of row k, too, for k from 1, `[rows − 1, positions]`. */
export const AGREES_OUTPUT = '/cqil/score/agrees';

/**
 * Appends nodes that score logits `[rows, positions, vocabulary]` against those of row 0, the reference:
 *
 *     loss = −ln p_row[target],   KL = Σ p_0 (ln p_0 − ln p_k)
 *
 * so that no logits leave ONNX Runtime. The reference's logits are a row of the same product: several candidates share
 * one, which costs less time than its own product for each and less memory than holding its log-probabilities
 * (4 bytes × vocabulary a position).
 */
export function appendScoring(model: Model, logits: string): void {
  const { graph } = model;
  const opset = model.opsets.get('') ?? 1;
  const add = (
    opType: string,
    inputs: readonly string[],
    to: string,
    attributes: NodeOptions['attributes'] = {},
  ) => {
    const output = to.startsWith('/') ? to : `/cqil/score/${to}`;
    graph.addNode(makeNode(opType, inputs, [output], { name: output, attributes }));
    return output;
  };
  const constant = (name: string, values: readonly number[]) =>
    graph.addInitializer(
      Tensor.create(
        `/cqil/score/${name}`,
        DataType.INT64,
        [values.length],
        BigInt64Array.from(values.map(BigInt)),
      ),
    );
  const zero = constant('zero', [0]);
  const one = constant('one', [1]);
  const end = constant('end', [2 ** 31]);
  const last = constant('last', [-1]);
  /** The reduction over the last axis; the axes became an input in opset `since`. */
  const reduce = (opType: string, value: string, to: string, keep: boolean, since: number) => {
    const keepdims = { keepdims: { int: keep ? 1 : 0 } };
    return opset >= since
      ? add(opType, [value, last], to, keepdims)
      : add(opType, [value], to, { ...keepdims, axes: { ints: [-1] } });
  };

  const logP = add('LogSoftmax', [logits], 'log_p', { axis: { int: -1 } });
  const reference = add('Slice', [logP, zero, one, zero], 'reference');
  const others = add('Slice', [logP, one, end, zero], 'others');

  const gathered = add('GatherElements', [logP, TARGETS_INPUT], 'log_p_target', { axis: { int: 2 } });
  add(
    'Neg',
    [add('Squeeze', opset >= 13 ? [gathered, last] : [gathered], 'target', squeeze(opset))],
    LOSS_OUTPUT,
  );

  const p = add('Exp', [reference], 'p');
  const terms = add('Mul', [p, add('Sub', [reference, others], 'log_ratio')], 'terms');
  reduce('ReduceSum', terms, KL_OUTPUT, false, 13);

  // Over all rows: without others there would be nothing to reduce, which ONNX Runtime gives another shape.
  const best = add('ArgMax', [reference], 'best', { axis: { int: 2 }, keepdims: { int: 1 } });
  const top = reduce('ReduceMax', logP, 'top', true, 18);
  const bestOfEach = add('Expand', [best, add('Shape', [top], 'top_shape')], 'best_of_each');
  const logPBest = add('GatherElements', [logP, bestOfEach], 'log_p_best', { axis: { int: 2 } });
  const equal = add('Equal', [logPBest, top], 'equal');
  const flat = add('Squeeze', opset >= 13 ? [equal, last] : [equal], 'equal_flat', squeeze(opset));
  const agrees = add('Cast', [flat], 'agrees_all', { to: { int: DataType.FLOAT } });
  add('Slice', [agrees, one, end, zero], AGREES_OUTPUT);

  graph.inputs.push(makeValueInfo(TARGETS_INPUT, DataType.INT64, ['cut_batch', 'cut_seq', 1]));
  for (const name of [LOSS_OUTPUT, KL_OUTPUT, AGREES_OUTPUT]) {
    graph.outputs.push(makeValueInfo(name, DataType.FLOAT, ['rows', 'cut_seq']));
  }
}

function squeeze(opset: number): NodeOptions['attributes'] {
  return opset >= 13 ? {} : { axes: { ints: [-1] } };
}
