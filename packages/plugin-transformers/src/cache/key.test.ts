import type { Plan } from '@cqil/core';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { cacheKey, type KeyParts } from './key.js';

const plan: Plan = { version: 1, layers: 6, groups: [{ layers: [2, 3], bypass: 1 }] };
const parts: KeyParts = {
  plan,
  graph: 'onnx/model.onnx',
  dtype: 'fp32',
  files: [{ path: 'onnx/model.onnx', size: 10, changed: '1700000000000000000' }],
  planner: '0.1.0',
};

describe('cacheKey', () => {
  it('does not depend on provenance, on the order of keys, or on a form that is said or left out', () => {
    const other: Plan = {
      groups: [{ bypass: 1, layers: [2, 3], form: 'branches' }],
      provenance: { tool: 'by hand', created: '2026-01-01' },
      layers: 6,
      version: 1,
    };
    expect(cacheKey({ ...parts, plan: other })).toBe(cacheKey(parts));
  });

  it.each<[string, Partial<KeyParts>]>([
    ['bypass', { plan: { ...plan, groups: [{ layers: [2, 3], bypass: 'full' }] } }],
    ['layers', { plan: { ...plan, groups: [{ layers: [3, 4], bypass: 1 }] } }],
    ['form', { plan: { ...plan, groups: [{ layers: [2, 3], bypass: 1, form: 'wide' }] } }],
    ['graph', { graph: 'onnx/model_q4.onnx' }],
    ['dtype', { dtype: 'q4' }],
    ['planner', { planner: '0.2.0' }],
    ['size', { files: [{ ...parts.files[0]!, size: 11 }] }],
    ['time of change', { files: [{ ...parts.files[0]!, changed: '1700000000000000001' }] }],
    ['number of files', { files: [...parts.files, { path: 'onnx/model.onnx_data', size: 1, changed: '1' }] }],
  ])('depends on the %s', (_name, change) => {
    expect(cacheKey({ ...parts, ...change })).not.toBe(cacheKey(parts));
  });

  it('is a name that every file system takes', () => {
    fc.assert(
      fc.property(fc.string(), fc.string(), (graph, dtype) => {
        expect(cacheKey({ ...parts, graph, dtype })).toMatch(/^[0-9a-f]{32}$/);
      }),
    );
  });
});
