// Tables as Markdown.

/** A table; numbers are written as given. */
export function markdownTable(
  head: readonly string[],
  rows: readonly (readonly (string | number)[])[],
): string {
  const line = (cells: readonly (string | number)[]) => `| ${cells.join(" | ")} |`;
  return [line(head), line(head.map(() => "---")), ...rows.map(line)].join("\n");
}

/** A number with three significant digits. */
export function short(value: number): string {
  if (!Number.isFinite(value)) return "–";
  return value >= 1000 ? value.toFixed(0) : String(Number(value.toPrecision(3)));
}
