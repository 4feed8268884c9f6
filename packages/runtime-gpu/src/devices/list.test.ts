import { describe, expect, it } from 'vitest';
import { openSession } from '../session/open.js';
import { listDevices, tryProvider } from './list.js';
import { PROBE_INPUT, PROBE_MODEL, PROBE_OUTPUT } from './probe-model.js';

describe('devices', () => {
  it('has a model that computes what it says', async () => {
    const session = await openSession(PROBE_MODEL);
    const { y } = await session.run({
      x: { type: 'float32', dims: [2, 2], data: Float32Array.from(PROBE_INPUT) },
    });
    expect([...(y!.data as Float32Array)]).toEqual(PROBE_OUTPUT);
    await session.dispose();
  });

  it('finds the CPU at work, and a reason for every device that does not', async () => {
    const devices = await listDevices();
    expect(devices.find(({ provider }) => provider === 'cpu')).toEqual({
      provider: 'cpu',
      bundled: true,
      works: true,
      reason: undefined,
    });
    for (const device of devices) expect(device.works).toBe(device.reason === undefined);
  });

  it('says why a provider cannot be used', async () => {
    const unknown = await tryProvider('abacus');
    expect(unknown.works).toBe(false);
    expect(unknown.reason).toContain('abacus');
  });

  it('does not wait for ever', async () => {
    expect(await tryProvider('cpu', { timeoutMs: 1 })).toEqual({
      works: false,
      reason: 'it did not answer within 0.001 s',
    });
  });

  it('stops when it is aborted', async () => {
    await expect(tryProvider('cpu', { signal: AbortSignal.abort(new Error('enough')) })).rejects.toThrow(
      'enough',
    );
  });
});
