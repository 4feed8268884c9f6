import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { formatProbe, type ProbeResult, readProbe, writeProbe } from './document.js';

const matrix = [
  [1, 0.5, 0.25],
  [0.5, 1, 1 / 3],
  [0.25, 1 / 3, 1],
];
const RESULT: ProbeResult = {
  version: 1,
  model: { graph: 'model.onnx', dtype: 'fp32', sha256: 'ab' },
  layers: 2,
  hidden: 4,
  text: [{ kind: 'file', spec: 'a.txt', sha256: 'cd', characters: 9, tokens: 5 }],
  settings: { window: 256, skipFirst: 1, ckaBatch: 64 },
  tokens: 4,
  metrics: { cosine: matrix, angular: matrix, relativeL2: matrix, cka: null, blockInfluence: [0.5, 2 / 3] },
};

describe('the probe document', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'probe-document-'));
  });
  afterAll(() => rm(folder, { recursive: true }));

  it('comes back as it was, up to the digits that are kept', async () => {
    const file = path.join(folder, 'probe.json');
    await writeProbe(RESULT, file);
    const read = await readProbe(file);
    expect(read.metrics.blockInfluence).toEqual([0.5, 0.6666667]);
    expect(read).toEqual(JSON.parse(formatProbe(RESULT)));
    expect(await readdir(folder)).toEqual(['probe.json']);
  });

  it('has a row a line', () => {
    expect(formatProbe(RESULT)).toContain('      [0.5, 1, 0.3333333],\n');
  });

  it('is not left half written', async () => {
    await expect(writeProbe(RESULT, path.join(folder, 'none', 'probe.json'))).rejects.toMatchObject({
      code: 'WRITE_FAILED',
    });
    const broken = { ...RESULT, layers: 3 };
    await expect(writeProbe(broken, path.join(folder, 'broken.json'))).rejects.toThrow();
    expect(await readdir(folder)).not.toContain('broken.json');
  });

  it.each([
    ['no JSON', '{', /PROBE_INVALID|no probe/],
    ['another version', JSON.stringify({ ...RESULT, version: 2 }), /version/],
    ['a matrix of another size', JSON.stringify({ ...RESULT, layers: 3 }), /cosine/],
    ['an unknown field', JSON.stringify({ ...RESULT, extra: 1 }), /extra/],
  ])('refuses %s', async (_name, content, message) => {
    const file = path.join(folder, 'bad.json');
    await writeFile(file, content);
    await expect(readProbe(file)).rejects.toThrow(message);
    await expect(readProbe(file)).rejects.toMatchObject({ code: 'PROBE_INVALID' });
  });

  it('says when there is none', async () => {
    await expect(readProbe(path.join(folder, 'none.json'))).rejects.toMatchObject({
      code: 'PROBE_NOT_FOUND',
    });
    expect(await readFile(path.join(folder, 'probe.json'), 'utf8')).toMatch(/\n$/);
  });
});
