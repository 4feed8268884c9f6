import { randomBytes } from 'node:crypto';
import type { ToolFormat } from '../model.js';

/** A call's id. Mistral's templates refuse any but nine letters and digits. */
export function callId(format: ToolFormat | undefined): string {
  const hex = randomBytes(12).toString('hex');
  return format === 'mistral' ? hex.slice(0, 9) : `call_${hex}`;
}
