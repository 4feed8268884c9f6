import { describe, expect, it } from 'vitest';
import { failedNode, loadError, reason } from './ort-errors.js';

describe('errors of ONNX Runtime', () => {
  it('keeps the node, whichever way the message names it', () => {
    expect(
      failedNode("Non-zero status code returned while running Mul node. Name:'/a/Mul_3' Status"),
    ).toEqual({
      opType: 'Mul',
      name: '/a/Mul_3',
    });
    expect(failedNode('Load failed: Node (n1) Op (Conv) [ShapeInferenceError] …')).toEqual({
      opType: 'Conv',
      name: 'n1',
    });
    expect(failedNode('Fatal error: com.example:Foo(-1) is not a registered function/op')).toEqual({
      opType: 'Foo',
      name: '',
    });
    expect(failedNode('Protobuf parsing failed.')).toBeUndefined();
  });

  it('drops the paths of the build machine', () => {
    expect(reason(new Error('failed /onnxruntime_src/onnxruntime/core/x.h:583 void f()'))).toBe(
      'failed void f()',
    );
  });

  it('says what to do', () => {
    expect(loadError('m.onnx', new Error('Protobuf parsing failed.')).hint).toMatch(/fetch it again/);
    expect(loadError('m.onnx', new Error('External data path does not exist')).hint).toMatch(/one folder/);
  });
});
