import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { type Plan, parsePlan } from '@cqil/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { testModel } from '../../../../tools/src/test-model.js';
import { readModel } from '../onnx/index.js';
import { rewriteBranches, rewriteModel } from '../rewrite/index.js';
import { locateModel } from '../source/index.js';
import { failureOf, verify, verifyRewritten } from './verify.js';

/** Eleven pairs, from the seventh layer on. */
const plan: Plan = parsePlan({
  version: 1,
  layers: 30,
  groups: Array.from({ length: 11 }, (_, i) => ({ layers: [6 + 2 * i, 7 + 2 * i], bypass: 1 })),
});

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(path.join(os.tmpdir(), 'cqil-verify-smollm2-'));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

describe.each([
  ['fp32', 'float32'],
  ['q4', 'int4'],
] as const)('SmolLM2 in %s, eleven pairs', (dtype, arithmetic) => {
  it('computes what the method says, on tokens and on text', async () => {
    const source = await locateModel(testModel(dtype));
    const out = path.join(dir, dtype);
    await rewriteModel(source, plan, out);
    const report = await verify(source, out);
    expect(failureOf(report)).toBeUndefined();
    expect(report.arithmetic).toBe(arithmetic);
    const run = report.checks.filter(({ name }) => name.startsWith('parity.') && name !== 'parity.padded');
    expect(run.map(({ name }) => name)).toEqual([
      'parity.prefill',
      'parity.decode',
      'parity.batch',
      'parity.text',
    ]);
    for (const check of run) {
      expect(check).toMatchObject({ status: 'passed', tolerance: 1e-3, argmaxDifferences: 0 });
      expect(check.planEffect).toBeGreaterThan(1);
    }
  });

  it('fails with another bypass than the plan says', async () => {
    const model = await readModel((await locateModel(testModel(dtype))).onnxFile);
    const other = { ...plan, groups: plan.groups.map((group) => ({ ...group, bypass: 0 })) };
    const report = await verifyRewritten(model, rewriteBranches(model, other).model, { plan });
    expect(report.checks.filter(({ ok }) => !ok).map(({ code }) => code)).toContain('PARITY');
  });
});
