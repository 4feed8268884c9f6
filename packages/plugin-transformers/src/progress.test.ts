import type { ProgressInfo } from '@huggingface/transformers';
import { describe, expect, it } from 'vitest';
import { reportAs } from './progress.js';

const planned = '.cqil/k/onnx/model.onnx';
const original = { graph: 'onnx/model.onnx', data: ['onnx/model.onnx_data'] };

function told(info: ProgressInfo): ProgressInfo {
  let got: ProgressInfo | undefined;
  reportAs((seen) => (got = seen), planned, original)(info);
  return got!;
}

describe('reportAs', () => {
  it("tells of the planned graph under the original's name, and of all else as it is", () => {
    expect(told({ status: 'done', name: 'm', file: planned })).toEqual({
      status: 'done',
      name: 'm',
      file: 'onnx/model.onnx',
    });
    const other = { status: 'done', name: 'm', file: 'tokenizer.json' } as const;
    expect(told(other)).toBe(other);
    const ready = { status: 'ready', task: 'text-generation', model: 'm' } as const;
    expect(told(ready)).toBe(ready);
  });

  it('adds up what is loaded, so that the sum is reached', () => {
    const files = {
      'config.json': { loaded: 10, total: 10 },
      'onnx/model.onnx': { loaded: 0, total: 90 },
      'onnx/model.onnx_data': { loaded: 0, total: 900 },
      [planned]: { loaded: 190, total: 190 },
    };
    const info = told({ status: 'progress_total', name: 'm', progress: 1, loaded: 200, total: 1190, files });
    expect(info).toEqual({
      status: 'progress_total',
      name: 'm',
      progress: 100,
      loaded: 200,
      total: 200,
      files: { 'config.json': files['config.json'], 'onnx/model.onnx': files[planned] },
    });
    expect(files).toHaveProperty([planned]);
  });
});
