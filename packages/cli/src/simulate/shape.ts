import { type ModelShape, modelShape, modelShapeNames } from '@cqil/core';
import { openModel } from '../model.js';

/** The shape of a model by name, or of a folder. */
export async function shapeOf(model: string, dtype: string | undefined): Promise<ModelShape> {
  if (modelShapeNames().includes(model)) return modelShape(model);
  const { shapeOfModel } = await import('@cqil/planner');
  const opened = await openModel(model, dtype);
  return { ...(await shapeOfModel(opened.source, opened)), name: model };
}
