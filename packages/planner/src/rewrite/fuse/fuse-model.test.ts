import { cp, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { readModel, writeModel } from '../../onnx/index.js';
import { locateModel } from '../../source/index.js';
import { checkFused, FUSE_FILE, fuseModel } from './index.js';

const testdata = path.resolve(import.meta.dirname, '../../../../../testdata');
const llama = path.join(testdata, 'optimum/llama');

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(path.join(os.tmpdir(), 'cqil-fuse-model-'));
});
afterEach(() => rm(dir, { recursive: true, force: true }));

describe('fuseModel', () => {
  it('writes a folder as the source is, checked, with what was done to it', async () => {
    const source = await locateModel(llama, { dtype: 'fp32' });
    const out = path.join(dir, 'out');
    const result = await fuseModel(source, out);
    expect(result).toMatchObject({
      root: out,
      onnxFile: path.join(out, 'onnx/model.onnx'),
      nodes: { before: 1594, after: 97 },
    });
    expect(result.checks).toHaveLength(1);
    expect(result.checks[0]).toMatchObject({ ok: true });
    expect((await readdir(out)).sort()).toEqual(
      ['config.json', FUSE_FILE, 'generation_config.json', 'onnx'].sort(),
    );
    expect(await readFile(path.join(out, 'config.json'), 'utf8')).toBe(
      await readFile(path.join(llama, 'config.json'), 'utf8'),
    );
    const document = JSON.parse(await readFile(path.join(out, FUSE_FILE), 'utf8'));
    expect(document).toMatchObject({ version: 1, passes: result.passes });
    const written = await readModel(result.onnxFile);
    expect((await checkFused(await readModel(source.onnxFile), written)).ok).toBe(true);
    // As many positions as the config says.
    const { max_position_embeddings: positions } = JSON.parse(
      await readFile(path.join(llama, 'config.json'), 'utf8'),
    );
    expect(written.graph.initializers.get('cos_cache')?.dims).toEqual([positions, 8]);
  });

  it('quantises, and holds the result to what the blocks stand for', async () => {
    const result = await fuseModel(await locateModel(llama, { dtype: 'fp32' }), path.join(dir, 'out'), {
      bits: 4,
    });
    expect(result.checks.map(({ ok }) => ok)).toEqual([true, true]);
    const written = await readModel(result.onnxFile);
    expect(written.graph.nodes.filter(({ opType }) => opType === 'MatMulNBits')).toHaveLength(25);
    const { size: before } = await stat(path.join(llama, 'onnx/model.onnx'));
    const { size: after } = await stat(result.onnxFile);
    expect(after).toBeLessThan(0.4 * before);
  });

  it('puts new weights where the old ones are: outside of the graph', async () => {
    await cp(llama, path.join(dir, 'in'), { recursive: true });
    const file = path.join(dir, 'in/onnx/model.onnx');
    await writeModel(await readModel(path.join(llama, 'onnx/model.onnx')), file, {
      external: { location: 'model.onnx_data' },
    });
    const result = await fuseModel(
      await locateModel(path.join(dir, 'in'), { dtype: 'fp32' }),
      path.join(dir, 'out'),
    );
    expect((await readdir(path.join(dir, 'out/onnx'))).sort()).toEqual(['model.onnx', 'model.onnx_data']);
    const packed = [...(await readModel(result.onnxFile)).graph.initializers].filter(([name]) =>
      name.startsWith('fused.layer'),
    );
    expect(packed).toHaveLength(12);
    for (const [, tensor] of packed) expect(tensor.location).toBe('model.onnx_data');
  });

  it('replaces only what it wrote, and only by force', async () => {
    const source = await locateModel(llama, { dtype: 'fp32' });
    const out = path.join(dir, 'out');
    await fuseModel(source, out, { check: false });
    await expect(fuseModel(source, out, { check: false })).rejects.toMatchObject({
      code: 'OUTPUT_NOT_EMPTY',
    });
    await writeFile(path.join(out, 'mine.txt'), 'mine');
    const again = await fuseModel(source, out, { check: false, force: true, bits: 8 });
    expect(again.checks).toEqual([]);
    expect(await readdir(out)).not.toContain('mine.txt');
    await rm(path.join(out, FUSE_FILE));
    await expect(fuseModel(source, out, { force: true })).rejects.toMatchObject({ code: 'OUTPUT_NOT_EMPTY' });
  });

  it('does not run models that are too large, and says so', async () => {
    const result = await fuseModel(await locateModel(llama, { dtype: 'fp32' }), path.join(dir, 'out'), {
      checkLimit: 1000,
    });
    expect(result.checks).toEqual([]);
    expect(result.notes.join()).toContain('too large to be run');
  });

  it('leaves nothing behind when it is stopped', async () => {
    const stop = new AbortController();
    const source = await locateModel(llama, { dtype: 'fp32' });
    const running = fuseModel(source, path.join(dir, 'out'), {
      signal: stop.signal,
      onProgress: ({ phase }) => phase === 'writing model' && stop.abort(),
    });
    await expect(running).rejects.toMatchObject({ name: 'AbortError' });
    expect(await readdir(dir)).toEqual([]);
  });
});
