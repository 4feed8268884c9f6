import { printJson } from './print.js';
import { planJsonSchema } from './schema.js';

/** The text of the published `plan.schema.json`. */
export function planSchemaText(): string {
  return `${printJson(planJsonSchema())}\n`;
}
