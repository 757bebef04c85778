// Text in columns.

/** Characters of a line of help. */
export const WIDTH = 100;

/** Lines whose cells stand below each other; the columns named are aligned to the right. */
export function columns(
  rows: readonly (readonly string[])[],
  options: { readonly indent?: string; readonly right?: readonly number[] } = {},
): string {
  const { indent = "", right = [] } = options;
  const widths: number[] = [];
  for (const row of rows) row.forEach((cell, i) => widths[i] = Math.max(widths[i] ?? 0, cell.length));
  const line = (row: readonly string[]) =>
    indent + row.map((cell, i) => right.includes(i) ? cell.padStart(widths[i]) : cell.padEnd(widths[i]))
      .join("  ").trimEnd();
  return rows.map((row) => `${line(row)}\n`).join("");
}
