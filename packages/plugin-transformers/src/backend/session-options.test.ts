import { describe, expect, it } from 'vitest';
import type { OrtSessionOptions } from './ort.js';
import { nativeOptions } from './session-options.js';

describe('nativeOptions', () => {
  it.each<[OrtSessionOptions, object]>([
    [{}, {}],
    [{ executionProviders: [] }, {}],
    [{ executionProviders: ['cpu', { name: 'cpu' }] }, {}],
    [{ intraOpNumThreads: 3, interOpNumThreads: 2 }, { threads: 3 }],
    [{ intraOpNumThreads: 0 }, {}],
    [{ graphOptimizationLevel: 'basic' }, { graphOptimization: 'basic' }],
    [{ logSeverityLevel: 0 }, { log: 'verbose' }],
    [{ logSeverityLevel: 3 }, { log: 'silent' }],
    [{ enableCpuMemArena: true, executionMode: 'sequential', logId: 'x' }, {}],
    [
      { extra: { session: { disable_prepacking: '1' }, 'session.set_denormal_as_zero': '1' } },
      { config: { 'session.disable_prepacking': '1', 'session.set_denormal_as_zero': '1' } },
    ],
  ])('%j is %j', (options, expected) => {
    expect(nativeOptions(options)).toEqual(expected);
  });

  it.each<OrtSessionOptions>([
    { executionProviders: ['webgpu'] },
    { executionProviders: ['cuda', 'cpu'] },
    { executionProviders: [{ name: 'cpu', useArena: false }] },
    { preferredOutputLocation: 'gpu-buffer' },
    { externalData: [{ path: 'weights', data: new Uint8Array(1) }] },
    { freeDimensionOverrides: { batch_size: 1 } },
    { enableCpuMemArena: false },
    { enableMemPattern: false },
    { executionMode: 'parallel' },
    { enableProfiling: true },
    { optimizedModelFilePath: 'out.onnx' },
    { graphOptimizationLevel: 'layout' as 'all' },
    { something: 'new' } as OrtSessionOptions,
  ])('%j is for onnxruntime-node', (options) => {
    expect(nativeOptions(options)).toBeUndefined();
  });

  it('reads options through the Proxy that ONNX Runtime wraps them in', () => {
    const options = new Proxy(
      { executionProviders: ['cuda', 'cpu'], intraOpNumThreads: 1 } as OrtSessionOptions,
      {
        get: (target, name) => (name === 'executionProviders' ? ['cpu'] : Reflect.get(target, name)),
      },
    );
    expect(nativeOptions(options)).toEqual({ threads: 1 });
  });
});
