import { describe, expect, it } from 'vitest';
import { keepQuiet } from './telemetry.js';

describe('keepQuiet', () => {
  it("turns ONNX Runtime's telemetry off, unless the user asked for it", () => {
    const environment: NodeJS.ProcessEnv = {};
    keepQuiet(environment);
    expect(environment.ORT_DISABLE_TELEMETRY).toBe('1');
    const asked: NodeJS.ProcessEnv = { ORT_DISABLE_TELEMETRY: '0' };
    keepQuiet(asked);
    expect(asked.ORT_DISABLE_TELEMETRY).toBe('0');
  });
});
