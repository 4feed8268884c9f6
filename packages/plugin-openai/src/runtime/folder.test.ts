import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createOpenAIHandler } from '../handler.js';
import { tinyModel } from '../test/tiny-model.js';
import { openModelFolder } from './folder.js';

let root: string;
const plan = (groups: number[][], layers = 6) => ({
  version: 1,
  layers,
  groups: groups.map((members) => ({ layers: members, bypass: 1 })),
});

/** A folder beside the model; its graph is the model's own, which is enough to be found. */
function beside(name: string, made: unknown, config: object = {}) {
  cpSync(join(root, 'tiny'), join(root, name), { recursive: true });
  writeFileSync(join(root, name, 'cqil.plan.json'), typeof made === 'string' ? made : JSON.stringify(made));
  const file = join(root, name, 'config.json');
  writeFileSync(
    file,
    JSON.stringify({ num_hidden_layers: 6, hidden_size: 64, max_position_embeddings: 256, ...config }),
  );
}

beforeAll(() => {
  root = mkdtempSync(join(tmpdir(), 'cqil-folder-'));
  using tiny = tinyModel({ num_hidden_layers: 6, hidden_size: 64 });
  cpSync(tiny.folder, join(root, 'tiny'), { recursive: true });
  beside(
    'tiny-4',
    plan([
      [1, 2],
      [3, 4],
    ]),
  );
  beside('tiny-5', plan([[1, 2]]));
  beside('tiny-other-layers', plan([[1, 2]], 8));
  beside('tiny-other-width', plan([[3, 4]]), { hidden_size: 128 });
  beside('tiny-nothing', plan([]));
  beside('tiny-half-written', '{"version"');
  mkdirSync(join(root, 'unrelated'));
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

describe('openModelFolder', () => {
  it('finds the variants beside a model, named by their steps', async () => {
    await using folder = await openModelFolder(join(root, 'tiny'));
    expect(folder.sources.map(({ id, steps }) => [id, steps])).toEqual([
      ['tiny', undefined],
      ['tiny:5-steps', 5],
      ['tiny:4-steps', 4],
    ]);
  });

  it('tells variants of as many steps apart by their folders', async () => {
    beside('tiny-5b', plan([[2, 3]]));
    await using folder = await openModelFolder(join(root, 'tiny'), { id: 'small' });
    expect(folder.sources.map(({ id }) => id)).toEqual([
      'small',
      'small:tiny-5',
      'small:tiny-5b',
      'small:4-steps',
    ]);
    rmSync(join(root, 'tiny-5b'), { recursive: true });
  });

  it('leaves them out when told to, and for a model that is a variant itself', async () => {
    await using without = await openModelFolder(join(root, 'tiny'), { variants: false });
    await using variant = await openModelFolder(join(root, 'tiny-5'));
    expect([...without.sources, ...variant.sources].map(({ id, steps }) => [id, steps])).toEqual([
      ['tiny', undefined],
      ['tiny-5', 5],
    ]);
  });

  it('serves them, each opened when it is first asked for', async () => {
    for (const name of ['tiny', 'tiny-4', 'tiny-5']) {
      rmSync(join(root, name, 'onnx', 'model_fp16.onnx'), { force: true });
      rmSync(join(root, name, 'onnx', 'model_quantized.onnx'), { force: true });
    }
    await using folder = await openModelFolder(join(root, 'tiny'), { eager: true });
    const handler = createOpenAIHandler({ models: folder.sources });
    const get = async (path: string) => {
      const response = await handler(new Request(`http://localhost${path}`));
      return [response.status, await response.json()];
    };
    expect(await get('/health')).toEqual([503, { status: 'loading' }]);
    expect(await get('/v1/models/tiny:4-steps')).toMatchObject([200, { id: 'tiny:4-steps' }]);
    for (const model of ['tiny:4-steps', 'tiny']) {
      const body = JSON.stringify({ model, prompt: 'Once', max_tokens: 2 });
      const response = await handler(
        new Request('http://localhost/v1/completions', { method: 'POST', body }),
      );
      expect(await response.json()).toMatchObject({ model, usage: { completion_tokens: 2 } });
    }
    expect(await get('/health')).toEqual([200, { status: 'ok' }]);
  });
});
