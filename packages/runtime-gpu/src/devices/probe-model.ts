/**
 * A graph of one node, `y = MatMul(x, x)` on float32 [2, 2] (ONNX opset 17): the least that shows whether a
 * device computes, and computes right.
 */
export const PROBE_MODEL = Buffer.from(
  'CAg6TAoZCgF4CgF4EgF5GgZzcXVhcmUiBk1hdE11bBIFcHJvYmVaEwoBeBIOCgwIARIICgIIAgoCCAJiEwoBeRIOCgwIARIICgIIAgoCCAJCBAoAEBE=',
  'base64',
);

export const PROBE_INPUT = [1, 2, 3, 4];
export const PROBE_OUTPUT = [7, 10, 15, 22];
