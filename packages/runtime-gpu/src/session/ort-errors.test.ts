import { describe, expect, it } from 'vitest';
import { failedNode, loadError, reason, runError } from './ort-errors.js';

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

  it('tells memory that is at its end from other failures', () => {
    const arena =
      "Non-zero status code returned while running Add node. Name:'/a' bfc_arena.cc:359 Failed to allocate memory for requested buffer of size 64";
    expect(runError('m.onnx', new Error(arena))).toMatchObject({
      code: 'OUT_OF_MEMORY',
      node: { opType: 'Add', name: '/a' },
    });
    expect(runError('m.onnx', new Error('std::bad_alloc')).code).toBe('OUT_OF_MEMORY');
    expect(runError('m.onnx', new Error('Invalid shape')).code).toBe('RUN_FAILED');
  });

  it('says what to do', () => {
    expect(loadError('m.onnx', new Error('Protobuf parsing failed.')).hint).toMatch(/fetch it again/);
    expect(loadError('m.onnx', new Error('External data path does not exist')).hint).toMatch(/one folder/);
  });
});
