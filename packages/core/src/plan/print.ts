/** Longest line of a value that is printed on one line. */
const WIDTH = 100;

/**
 * JSON that people read and that is always the same for the same value: indented by two, with lists and objects
 * on one line where they hold no other objects or lists of lists and fit.
 */
export function printJson(value: unknown, indent = ''): string {
  const line = oneLine(value);
  if (line !== undefined && indent.length + line.length <= WIDTH) return line;
  const inner = `${indent}  `;
  if (Array.isArray(value)) {
    return `[\n${value.map((item) => inner + printJson(item, inner)).join(',\n')}\n${indent}]`;
  }
  if (typeof value === 'object' && value !== null) {
    const fields = Object.entries(value).map(
      ([key, field]) => `${inner}${JSON.stringify(key)}: ${printJson(field, inner)}`,
    );
    return `{\n${fields.join(',\n')}\n${indent}}`;
  }
  return JSON.stringify(value);
}

/** The value on one line, or undefined where it nests deeper than a group with its list of layers does. */
function oneLine(value: unknown, depth = 0): string | undefined {
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  if (Array.isArray(value)) {
    if (value.length === 0) return '[]';
    const items = value.map((item) => (isScalar(item) ? JSON.stringify(item) : undefined));
    return items.includes(undefined) ? undefined : `[${items.join(', ')}]`;
  }
  const entries = Object.entries(value);
  if (entries.length === 0) return '{}';
  if (depth > 0) return undefined;
  const fields = entries.map(([key, field]) => {
    const text = oneLine(field, depth + 1);
    return text === undefined ? undefined : `${JSON.stringify(key)}: ${text}`;
  });
  return fields.includes(undefined) ? undefined : `{ ${fields.join(', ')} }`;
}

function isScalar(value: unknown): boolean {
  return typeof value !== 'object' || value === null;
}
