import { ModelFormatError, VerificationError } from '@cqil/core';
import { describe, expect, it } from 'vitest';
import { exitCodeOf, failureDocument, printFailure } from './failure.js';

const bad = new ModelFormatError('MODEL_NOT_ONNX', 'x is not an ONNX model.', {
  expected: 'an ONNX file',
  found: 'a zip archive',
  hint: 'export it',
});

function printed(error: unknown, debug = false): string {
  let text = '';
  printFailure(error, { write: (more) => (text += more) }, debug);
  return text;
}

describe('failures', () => {
  it('are printed as code, message, expectation, finding and advice, without a stack', () => {
    expect(printed(bad)).toBe(
      'MODEL_NOT_ONNX: x is not an ONNX model.\n  expected: an ONNX file\n  found: a zip archive\n  what to do: export it\n',
    );
    expect(printed(bad, true)).toContain('    at ');
  });

  it('tell bad input, failed checks and interruptions apart by exit code', () => {
    expect(exitCodeOf(bad)).toBe(2);
    expect(exitCodeOf(new VerificationError('PARITY', 'no'))).toBe(1);
    expect(exitCodeOf(new DOMException('stopped', 'AbortError'))).toBe(130);
    expect(exitCodeOf(new TypeError('a bug'))).toBe(2);
  });

  it('name what the system refused, and own up to faults of the program', () => {
    const full = Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' });
    expect(failureDocument(full).error.code).toBe('SYSTEM_ENOSPC');
    expect(failureDocument(new TypeError('x is undefined')).error).toMatchObject({ code: 'INTERNAL' });
    expect(failureDocument(bad)).toEqual({
      error: {
        code: 'MODEL_NOT_ONNX',
        message: 'x is not an ONNX model.',
        expected: 'an ONNX file',
        found: 'a zip archive',
        hint: 'export it',
      },
    });
  });
});
