import { type FloatType, rowMajorData } from './float-data.js';
import { emitFloatLinear } from './linear.js';
import type { Storage } from './llama-graph.js';

/** All weights as floating-point numbers of one type. */
export function floatStorage(floatType: FloatType): Storage {
  const tableName = 'model.embed_tokens.weight';
  return {
    floatType,
    packs: () => true,
    linear: emitFloatLinear,
    embedding(b, name, ids, table) {
      const weight = b.weight(
        tableName,
        b.floatDataType,
        [table.outputs, table.inputs],
        rowMajorData(table, floatType),
      );
      return b.node(`${name}/Gather`, 'Gather', [weight, ids]);
    },
    tiedOutput(b, name, input) {
      // The runtime turns the table once, when it loads the model; the file holds it once.
      const turned = b.node(`${name}/Transpose`, 'Transpose', [tableName], { perm: { ints: [1, 0] } });
      return b.node(`${name}/MatMul`, 'MatMul', [input, turned]);
    },
  };
}
