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
