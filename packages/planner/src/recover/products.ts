import { InferenceError, type Session, type TensorValue } from '@cqil/runtime-gpu';
import { DataType, Model, makeNode, makeValueInfo, Tensor } from '../onnx/index.js';
import { openVariant } from '../variant/index.js';

/** A matrix in float64, row-major. */
export interface Matrix {
  readonly rows: number;
  readonly columns: number;
  readonly data: Float64Array;
}

/**
 * Matrix products for recovery, run by ONNX Runtime on all cores: Gram matrices of activations in float32, which are
 * summed in float64, and plain products in float64.
 */
export class Products {
  readonly #sessions = new Map<string, Promise<Session>>();
  readonly #threads: number | undefined;

  constructor(threads?: number) {
    this.#threads = threads;
  }

  /** A · B, or A · Bᵀ. */
  async multiply(a: Matrix, b: Matrix, transposed = false): Promise<Matrix> {
    const inner = transposed ? b.columns : b.rows;
    if (a.columns !== inner) throw shapes(`${a.columns} rows`, `${inner}`);
    const columns = transposed ? b.rows : b.columns;
    const session = await this.#session(transposed ? 'product-transposed' : 'product', () =>
      productModel(transposed),
    );
    const { y } = await session.run({ a: tensor(a), b: tensor(b) });
    return { rows: a.rows, columns, data: (y as TensorValue).data as Float64Array };
  }

  /**
   * Sums over tokens, each weighted.
   *
   * @param x `[tokens, features]`
   * @param e `[tokens, outputs]`
   * @param weights `[tokens]`
   * @param withOne adds a feature that is 1 for every token, the last one: for a bias
   */
  async gram(
    x: Float32Array,
    e: Float32Array,
    weights: Float32Array,
    withOne: boolean,
  ): Promise<{ gram: Float32Array; moment: Float32Array; energy: number }> {
    const tokens = weights.length;
    const session = await this.#session(withOne ? 'gram-one' : 'gram', () => gramModel(withOne));
    const results = await session.run({
      x: { type: 'float32', dims: [tokens, x.length / tokens], data: x },
      e: { type: 'float32', dims: [tokens, e.length / tokens], data: e },
      w: { type: 'float32', dims: [tokens, 1], data: weights },
    });
    const [gram, moment, energy] = ['gram', 'moment', 'energy'].map(
      (name) => (results[name] as TensorValue).data as Float32Array,
    ) as [Float32Array, Float32Array, Float32Array];
    return { gram, moment, energy: energy.reduce((sum, value) => sum + value, 0) };
  }

  async dispose(): Promise<void> {
    const open = [...this.#sessions.values()];
    this.#sessions.clear();
    await Promise.all(open.map(async (session) => (await session).dispose()));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  #session(name: string, make: () => Model): Promise<Session> {
    let session = this.#sessions.get(name);
    if (session === undefined) {
      session = openVariant(make(), {
        ...(this.#threads === undefined ? {} : { threads: this.#threads }),
        // One product of many sizes each: kept buffers would hold the largest of all for good.
        config: { 'session.enable_cpu_mem_arena': '0', 'session.intra_op.allow_spinning': '0' },
      });
      this.#sessions.set(name, session);
    }
    return session;
  }
}

function tensor({ rows, columns, data }: Matrix): TensorValue {
  return { type: 'float64', dims: [rows, columns], data };
}

function newModel(name: string): Model {
  return Model.create({ producer: 'cqil', irVersion: 8, opsets: { '': 17 }, graphName: name });
}

function productModel(transposed: boolean): Model {
  const model = newModel('product');
  const { graph } = model;
  graph.inputs = [
    makeValueInfo('a', DataType.DOUBLE, ['rows', 'inner']),
    makeValueInfo('b', DataType.DOUBLE, transposed ? ['columns', 'inner'] : ['inner', 'columns']),
  ];
  graph.outputs = [makeValueInfo('y', DataType.DOUBLE, ['rows', 'columns'])];
  if (transposed) {
    graph.addNode(
      makeNode('Transpose', ['b'], ['bt'], { name: 'b', attributes: { perm: { ints: [1, 0] } } }),
    );
  }
  graph.addNode(makeNode('MatMul', ['a', transposed ? 'bt' : 'b'], ['y'], { name: 'y' }));
  return model;
}

function gramModel(withOne: boolean): Model {
  const model = newModel('gram');
  const { graph } = model;
  graph.inputs = [
    makeValueInfo('x', DataType.FLOAT, ['tokens', 'features']),
    makeValueInfo('e', DataType.FLOAT, ['tokens', 'outputs']),
    makeValueInfo('w', DataType.FLOAT, ['tokens', 1]),
  ];
  graph.outputs = [
    makeValueInfo('gram', DataType.FLOAT, ['all', 'all']),
    makeValueInfo('moment', DataType.FLOAT, ['all', 'outputs']),
    makeValueInfo('energy', DataType.FLOAT, ['outputs']),
  ];
  const add = (op: string, inputs: string[], output: string, attributes = {}) =>
    graph.addNode(makeNode(op, inputs, [output], { name: output, attributes }));
  let x = 'x';
  if (withOne) {
    graph.addInitializer(Tensor.create('zero', DataType.FLOAT, [], Float32Array.of(0)));
    graph.addInitializer(Tensor.create('unit', DataType.FLOAT, [], Float32Array.of(1)));
    add('Mul', ['w', 'zero'], 'zeros');
    add('Add', ['zeros', 'unit'], 'ones');
    add('Concat', ['x', 'ones'], 'x1', { axis: { int: 1 } });
    x = 'x1';
  }
  add('Mul', [x, 'w'], 'xw');
  add('Transpose', ['xw'], 'xt', { perm: { ints: [1, 0] } });
  add('MatMul', ['xt', x], 'gram');
  add('MatMul', ['xt', 'e'], 'moment');
  add('Mul', ['e', 'e'], 'ee');
  add('Mul', ['ee', 'w'], 'eew');
  graph.addInitializer(Tensor.create('axes', DataType.INT64, [1], BigInt64Array.of(0n)));
  add('ReduceSum', ['eew', 'axes'], 'energy', { keepdims: { int: 0 } });
  return model;
}

function shapes(expected: string, found: string): InferenceError {
  return new InferenceError('INPUT_SHAPE', 'The matrices cannot be multiplied.', { expected, found });
}
