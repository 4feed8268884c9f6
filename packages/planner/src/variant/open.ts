import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { openSession, type Session, type SessionOptions } from '@cqil/runtime-gpu';
import { type Model, writeModel } from '../onnx/index.js';
import { byReference } from './by-reference.js';
import { ScratchFolder } from './scratch-folder.js';

/**
 * Loads a model that exists in memory only: a changed copy of one on disk, with more outputs or fewer nodes.
 *
 * Weights are not copied: the copy refers to where they are in the source's files. Nothing is written into
 * the source's folder, and what must be written elsewhere is gone when the session is disposed, at the latest
 * when the process ends.
 *
 * @throws what `openSession` throws; ModelFormatError and EnvironmentError from writing the graph
 * @example
 * ```ts
 * const variant = model.clone();
 * variant.graph.outputs.push(makeValueInfo(layers[3].input, DataType.FLOAT, ['batch', 'seq', hidden]));
 * const session = await openVariant(variant, { threads: 2 });
 * ```
 */
export async function openVariant(model: Model, options: SessionOptions = {}): Promise<Session> {
  const scratch = await ScratchFolder.create();
  try {
    const { model: referring, folder } = await byReference(model, scratch.path);
    const file = path.join(scratch.path, 'graph.onnx');
    await writeModel(referring, file, { external: 'inline' });
    const session = await openSession(await readFile(file), { ...options, externalDataFolder: folder });
    return removingAfterwards(session, scratch);
  } catch (error) {
    await scratch.remove();
    throw error;
  }
}

/** Opens a variant, hands it to `use`, and frees it whatever happens. */
export async function withVariant<T>(
  model: Model,
  options: SessionOptions,
  use: (session: Session) => Promise<T>,
): Promise<T> {
  const session = await openVariant(model, options);
  try {
    return await use(session);
  } finally {
    await session.dispose();
  }
}

function removingAfterwards(session: Session, scratch: ScratchFolder): Session {
  const dispose = async () => {
    await session.dispose();
    await scratch.remove();
  };
  return {
    binding: session.binding,
    model: session.model,
    inputs: session.inputs,
    outputs: session.outputs,
    run: (feeds, fetches, options) => session.run(feeds, fetches, options),
    dispose,
    [Symbol.asyncDispose]: dispose,
  };
}
