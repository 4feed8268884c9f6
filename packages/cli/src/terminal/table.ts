/**
 * A plain text table: columns padded to their widest cell, two spaces between, numbers (cells that start with
 * a digit or a sign) to the right. The first row is the head.
 */
export function table(rows: readonly (readonly string[])[]): string {
  const widths = rows.reduce<number[]>((found, row) => {
    row.forEach((cell, i) => {
      found[i] = Math.max(found[i] ?? 0, cell.length);
    });
    return found;
  }, []);
  return rows
    .map((row) =>
      row
        .map((cell, i) =>
          /^[-+−]?\d/.test(cell) ? cell.padStart(widths[i] ?? 0) : cell.padEnd(widths[i] ?? 0),
        )
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** Names and values, one pair a line, the values below each other and broken at `width`. */
export function facts(pairs: readonly (readonly [name: string, value: string])[], width = 110): string {
  const column = Math.max(...pairs.map(([name]) => name.length)) + 2;
  return pairs
    .flatMap(([name, value]) =>
      wrap(value, width - column).map((line, i) =>
        `${(i === 0 ? name : '').padEnd(column)}${line}`.trimEnd(),
      ),
    )
    .join('\n');
}

function wrap(text: string, width: number): string[] {
  const lines = [''];
  for (const word of text.split(' ')) {
    const last = lines.at(-1) as string;
    if (last !== '' && last.length + 1 + word.length > width) lines.push(word);
    else lines[lines.length - 1] = last === '' ? word : `${last} ${word}`;
  }
  return lines;
}
