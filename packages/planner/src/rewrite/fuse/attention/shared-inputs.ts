import { toHalf } from '../../../gguf/half.js';
import {
  DataType,
  elementType,
  type Graph,
  type Model,
  makeAttributeTensor,
  makeNode,
  type Node,
  Tensor,
} from '../../../onnx/index.js';
import type { Names } from '../../names.js';
import type { FusePadding } from '../types.js';
import type { InputRoles } from './probe.js';
import type { RotaryTable } from './rotary.js';

/** Large enough to hide a key, small enough for float16 and for sums with scores. */
const HIDDEN = { [DataType.FLOAT]: -1e9, [DataType.FLOAT16]: -65504 } as Readonly<Record<number, number>>;

/**
 * What all layers' `GroupQueryAttention` read besides queries, keys and values: lengths, masks and rotary tables, each
 * made once. Lengths are computed as ONNX Runtime GenAI's builder computes them.
 */
export class SharedInputs {
  readonly nodes: Node[] = [];
  readonly #made = new Map<string, string>();
  readonly #prefix = '/fused/attention';

  constructor(
    readonly model: Model,
    readonly names: Names,
    readonly roles: InputRoles,
    readonly tokens: string,
    /** A cache input: its axis 2 is as long as the past. */
    readonly past: string,
    readonly padding: FusePadding,
  ) {}

  /**
   * int32 `[batch]`: the last position that is attended, by sequence. So the operator puts a token where the mask says
   * that it is, and sequences of different lengths can be padded on either side. The bias of a window knows one
   * position for all sequences, and so must they, then.
   */
  seqlens(window: number | undefined): string {
    const { mask } = this.roles;
    const own = mask !== undefined && (this.padding === 'none' || window === undefined);
    return this.#once(own ? 'seqlens_k' : 'seqlens_k.all', () => {
      if (own) {
        const counted =
          elementType(mask) === DataType.INT64
            ? mask.name
            : this.#node('Cast', [mask.name], { to: { int: DataType.INT64 } });
        if (this.padding === 'left') {
          const [zero, one] = [this.#ints('zero', 0), this.#ints('one', 1)];
          const columns = this.#node('Range', [zero, this.#totalLong(), one]);
          const attended = this.#node('Mul', [counted, columns]);
          const last = this.#node('ReduceMax', [attended, this.#ints('axis_1', [1])], {
            keepdims: { int: 0 },
          });
          return this.#node('Cast', [last], { to: { int: DataType.INT32 } });
        }
        const sum = this.#node('ReduceSum', [counted, this.#ints('axis_1', [1])], { keepdims: { int: 0 } });
        const last = this.#node('Sub', [sum, this.#ints('one', 1)]);
        return this.#node('Cast', [last], { to: { int: DataType.INT32 } });
      }
      const last = this.#node('Sub', [this.total(), this.#int32('one_int32', 1)]);
      const batch = this.#node('Gather', [this.#shape(this.tokens), this.#ints('axis_0', [0])], {
        axis: { int: 0 },
      });
      return this.#node('Expand', [last, batch]);
    });
  }

  /** int32 scalar: past and new positions together. */
  total(): string {
    return this.#once('total_sequence_length', () =>
      this.#node('Cast', [this.#totalLong()], { to: { int: DataType.INT32 } }),
    );
  }

  /**
   * Float `[batch, 1, seq, past + seq]`, 0 where a query may look and a large negative number elsewhere; `''` where the
   * operator's own mask is enough. What is hidden by that, later keys, need not be hidden here.
   */
  bias(window: number | undefined, type: number): string {
    const { mask } = this.roles;
    if (this.padding === 'none' || (mask === undefined && window === undefined)) return '';
    return this.#once(`bias.${window ?? 'all'}.${type}`, () => {
      const kept = mask === undefined ? undefined : this.#keptKeys(mask.name);
      if (window === undefined) return this.#expanded(this.#hidden(kept as string, type));
      const inside = this.#insideWindow(window);
      return this.#hidden(kept === undefined ? inside : this.#node('And', [kept, inside]), type);
    });
  }

  /** Names of the cosines and sines, `[positions, half]`. */
  rotary(table: RotaryTable, type: number): { cos: string; sin: string } {
    const store = (kind: 'cos' | 'sin') =>
      this.#once(`${kind}.${table.key}.${type}`, () => {
        const name = this.names.fresh(`${kind}_cache`);
        const values = type === DataType.FLOAT16 ? toHalf(table[kind]) : table[kind];
        return this.model.graph.addInitializer(
          Tensor.create(name, type, [table.positions, table.half], values),
        );
      });
    return { cos: store('cos'), sin: store('sin') };
  }

  /** A shape, for `Reshape`. */
  shapeConstant(name: string, dims: readonly number[]): string {
    return this.#ints(`shape_${name}`, dims);
  }

  /** bool `[batch, 1, 1, total]` */
  #keptKeys(mask: string): string {
    return this.#once('kept', () => {
      const kept = this.#node('Cast', [mask], { to: { int: DataType.BOOL } });
      return this.#node('Unsqueeze', [kept, this.#ints('axes_1_2', [1, 2])]);
    });
  }

  /** bool `[1, 1, seq, total]`: keys no further back than a window. */
  #insideWindow(window: number): string {
    return this.#once(`window.${window}`, () => {
      const [zero, one] = [this.#ints('zero', 0), this.#ints('one', 1)];
      const total = this.#totalLong();
      const seq = this.#node('Gather', [this.#shape(this.tokens), one], { axis: { int: 0 } });
      const keys = this.#node('Range', [zero, total, one]);
      const queries = this.#node('Range', [this.#node('Sub', [total, seq]), total, one]);
      const first = this.#node('Sub', [queries, this.#ints(`window_${window}`, window)]);
      const inside = this.#node('Greater', [
        keys,
        this.#node('Unsqueeze', [first, this.#ints('axis_1', [1])]),
      ]);
      return this.#node('Unsqueeze', [inside, this.#ints('axes_0_1', [0, 1])]);
    });
  }

  #hidden(visible: string, type: number): string {
    const scalar = (name: string, value: number) => {
      const data = type === DataType.FLOAT16 ? toHalf(Float32Array.of(value)) : Float32Array.of(value);
      return this.#constant(`${name}_${type}`, type, [], data);
    };
    return this.#node('Where', [visible, scalar('visible', 0), scalar('hidden', HIDDEN[type] as number)]);
  }

  /** `[batch, 1, 1, total]` to `[batch, 1, seq, total]`, which the operator wants. */
  #expanded(bias: string): string {
    const seq = this.#node('Gather', [this.#shape(this.tokens), this.#ints('axis_1', [1])], {
      axis: { int: 0 },
    });
    const shape = this.#node('Concat', [this.#ints('ones_2', [1, 1]), seq, this.#ints('axis_1', [1])], {
      axis: { int: 0 },
    });
    return this.#node('Expand', [bias, shape]);
  }

  #totalLong(): string {
    return this.#once('total', () => {
      const one = this.#ints('one', 1);
      const { mask } = this.roles;
      if (mask !== undefined)
        return this.#node('Gather', [this.#shape(mask.name), one], { axis: { int: 0 } });
      const past = this.#node('Gather', [this.#shape(this.past), this.#ints('two', 2)], { axis: { int: 0 } });
      const seq = this.#node('Gather', [this.#shape(this.tokens), one], { axis: { int: 0 } });
      return this.#node('Add', [past, seq]);
    });
  }

  #shape(value: string): string {
    return this.#once(`shape.${value}`, () => this.#node('Shape', [value]));
  }

  #once(key: string, make: () => string): string {
    const known = this.#made.get(key);
    if (known !== undefined) return known;
    const made = make();
    this.#made.set(key, made);
    return made;
  }

  #node(opType: string, inputs: string[], attributes: Record<string, { int: number }> = {}): string {
    const name = this.names.fresh(`${this.#prefix}/${opType}`);
    const output = this.names.fresh(`${name}_output_0`);
    this.nodes.push(makeNode(opType, inputs, [output], { name, attributes }));
    return output;
  }

  #ints(name: string, value: number | readonly number[]): string {
    const list = typeof value === 'number' ? [value] : value;
    return this.#constant(
      name,
      DataType.INT64,
      typeof value === 'number' ? [] : [list.length],
      BigInt64Array.from(list, BigInt),
    );
  }

  #int32(name: string, value: number): string {
    return this.#constant(name, DataType.INT32, [], Int32Array.of(value));
  }

  #constant(name: string, type: number, dims: readonly number[], data: ArrayBufferView): string {
    return this.#once(`constant.${name}`, () => {
      const output = this.names.fresh(`${this.#prefix}/${name}`);
      const tensor = makeAttributeTensor(output, type, dims, data);
      this.nodes.push(
        makeNode('Constant', [], [output], {
          name: this.names.fresh(`${output}/Constant`),
          attributes: { value: { tensor } },
        }),
      );
      return output;
    });
  }
}

/** Puts nodes at the beginning of a graph: they read graph inputs only. */
export function prepend(graph: Graph, nodes: readonly Node[]): void {
  graph.nodes = [...nodes, ...graph.nodes];
}
