// Pictures and tables that the examples write: SVG from a few shapes, a line chart, CSV.

/** Text with what XML reserves spelled out. */
export function escapeXml(text: string): string {
  const names: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
  // Control characters are not allowed in XML at all.
  return text.replace(/[&<>"]/g, (mark) => names[mark]).replace(/[^\P{Cc}\t\n]/gu, "�");
}

/** Attributes of an element. */
export type Attributes = Readonly<Record<string, string | number>>;

/** An element around others, or around text that is escaped already. */
export function element(name: string, attributes: Attributes, content = ""): string {
  const written = Object.entries(attributes).map(([key, value]) =>
    ` ${key}="${typeof value === "number" ? +value.toFixed(2) : escapeXml(value)}"`
  );
  return `<${name}${written.join("")}${content === "" ? "/>" : `>${content}</${name}>`}`;
}

/** A label. */
export function label(x: number, y: number, text: string, attributes: Attributes = {}): string {
  return element("text", { x, y, ...attributes }, escapeXml(text));
}

/** A picture on white. */
export function svgPage(width: number, height: number, content: readonly string[]): string {
  const page = {
    xmlns: "http://www.w3.org/2000/svg",
    viewBox: `0 0 ${Math.ceil(width)} ${Math.ceil(height)}`,
    width: Math.ceil(width),
    height: Math.ceil(height),
    "font-family": "Helvetica, Arial, sans-serif",
    "font-size": 12,
    fill: "#222",
  };
  const ground = element("rect", { width: "100%", height: "100%", fill: "#fff" });
  return `${element("svg", page, `\n${[ground, ...content].join("\n")}\n`)}\n`;
}

/** Colours that are told apart on white, with a dash for each time they begin anew. */
const BOLD = {
  colors: ["#1b6ca8", "#d1495b", "#2e933c", "#8f5fbf", "#c77700", "#00798c", "#8c564b", "#d43f9a"],
  dashes: ["none", "6 3", "2 3"],
};
/** Those of what others are compared with. */
const FAINT = { colors: ["#aaa", "#555"], dashes: ["2 2", "6 3"] };

/** One line of a chart; a gap where a value is missing. */
export interface Line {
  readonly name: string;
  readonly points: readonly (readonly [x: number, y: number | undefined])[];
  /** Grey and thin: what the others are compared with. */
  readonly faint?: boolean;
  /** Colour in place of the next one. */
  readonly color?: string;
  /** Dashes in place of those of the colour's turn. */
  readonly dash?: string;
  /** The line with a mark at each point, or one of both alone. Default: both. */
  readonly draw?: "both" | "line" | "marks";
}

/** What stands around the lines. */
export interface Chart {
  readonly title: string;
  readonly xTitle: string;
  readonly yTitle: string;
  /** Values that are written below. */
  readonly xTicks: readonly number[];
  /** Range of y. Default: that of the points. */
  readonly yRange?: readonly [low: number, high: number];
  /** How values of y and of x are written. */
  readonly yText: (y: number) => string;
  readonly xText: (x: number) => string;
}

/** A chart of lines; their names stand at the right, in the order of their ends. */
export function lineChart(chart: Chart, lines: readonly Line[]): string {
  const [left, top, plotWidth, plotHeight] = [64, 44, 460, 320];
  const values = lines.flatMap(({ points }) => points.flatMap(([, y]) => y === undefined ? [] : [y]));
  let [low, high] = chart.yRange ?? [Math.min(...values), Math.max(...values)];
  if (!(high > low)) [low, high] = Number.isFinite(low) ? [low - 0.5, low + 0.5] : [0, 1];
  const step = roundStep((high - low) / 5);
  if (!chart.yRange) [low, high] = [Math.floor(low / step) * step, Math.ceil(high / step) * step];
  const [first, last] = [Math.min(...chart.xTicks), Math.max(...chart.xTicks)];
  const xOf = (x: number) => left + plotWidth * (last > first ? (x - first) / (last - first) : 0.5);
  const yOf = (y: number) => top + plotHeight * (1 - (y - low) / (high - low));
  const shapes = [label(left, 24, chart.title, { "font-size": 15, "font-weight": "bold" })];
  for (let tick = Math.ceil(low / step - 1e-6); tick <= high / step + 1e-6; tick++) {
    const y = tick === 0 ? 0 : tick * step;
    shapes.push(
      element("path", { d: `M${left} ${yOf(y).toFixed(1)}h${plotWidth}`, stroke: "#ddd" }),
      label(left - 8, yOf(y) + 4, chart.yText(y), { "text-anchor": "end" }),
    );
  }
  for (const x of chart.xTicks) {
    shapes.push(label(xOf(x), top + plotHeight + 18, chart.xText(x), { "text-anchor": "middle" }));
  }
  shapes.push(
    label(left + plotWidth / 2, top + plotHeight + 40, chart.xTitle, { "text-anchor": "middle" }),
    label(0, 0, chart.yTitle, {
      "text-anchor": "middle",
      transform: `translate(16 ${top + plotHeight / 2}) rotate(-90)`,
    }),
  );
  let [drawn, grey] = [0, 0];
  const names: { y: number; text: string; color: string; dash: string; draw: Line["draw"] }[] = [];
  for (const { name, points, faint, draw = "both", ...own } of lines) {
    const among = faint ? FAINT : BOLD;
    const count = own.color ? 0 : faint ? grey++ : drawn++;
    const color = own.color ?? among.colors[count % among.colors.length];
    const dash = own.dash ?? among.dashes[Math.floor(count / among.colors.length) % among.dashes.length];
    const known = points.filter((point): point is readonly [number, number] => point[1] !== undefined)
      .sort(([a], [b]) => a - b);
    if (known.length === 0) continue;
    const places = known.map(([x, y]) => `${xOf(x).toFixed(1)} ${yOf(y).toFixed(1)}`);
    const stroke = { stroke: color, "stroke-width": faint ? 1.5 : 2, "stroke-dasharray": dash, fill: "none" };
    if (draw !== "marks") shapes.push(element("path", { d: `M${places.join("L")}`, ...stroke }));
    if (draw !== "line") {
      for (const [x, y] of known) {
        shapes.push(element("circle", { cx: xOf(x), cy: yOf(y), r: 3, fill: color }));
      }
    }
    names.push({ y: yOf(known[known.length - 1][1]), text: name, color, dash, draw });
  }
  // Ends that fall together keep the order of the lines.
  names.sort((a, b) => Math.round(a.y) - Math.round(b.y));
  // Names keep a line's height between them, inside the plot's height as far as they fit.
  let next = top;
  names.forEach((entry, i) => {
    const latest = top + plotHeight - (names.length - 1 - i) * 17;
    const y = Math.max(next, Math.min(entry.y, latest));
    next = y + 17;
    const x = left + plotWidth + 12;
    const sample = entry.draw === "marks"
      ? element("circle", { cx: x + 12, cy: y, r: 3, fill: entry.color })
      : element("path", {
        d: `M${x} ${y.toFixed(1)}h24`,
        stroke: entry.color,
        "stroke-width": 2,
        "stroke-dasharray": entry.dash,
      });
    shapes.push(sample, label(x + 30, y + 4, entry.text));
  });
  const longest = Math.max(0, ...names.map(({ text }) => text.length));
  return svgPage(left + plotWidth + 54 + longest * 7, Math.max(top + plotHeight + 56, next + 8), shapes);
}

/** Pictures side by side, so many in a row, in one picture. */
export function sideBySide(pictures: readonly string[], columns: number): string {
  const sizes = pictures.map((picture) => {
    const [, width, height] = / width="(\d+)" height="(\d+)"/.exec(picture)!;
    return { width: Number(width), height: Number(height) };
  });
  const width = Math.max(...sizes.map((size) => size.width));
  const height = Math.max(...sizes.map((size) => size.height));
  const placed = pictures.map((picture, i) =>
    picture.trimEnd().replace(
      "<svg ",
      `<svg x="${i % columns * width}" y="${Math.floor(i / columns) * height}" `,
    )
  );
  const across = Math.min(columns, pictures.length);
  return svgPage(across * width, Math.ceil(pictures.length / columns) * height, placed);
}

/** A power of ten by its exponent, for axes of logarithms. */
export function powerOfTen(exponent: number): string {
  if (!Number.isInteger(exponent)) return Number((10 ** exponent).toPrecision(2)).toString();
  const raised = [...String(exponent)].map((mark) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[Number(mark)] ?? "⁻").join("");
  return exponent === 0 ? "1" : exponent === 1 ? "10" : `10${raised}`;
}

/** 1, 2 or 5 times a power of ten, at least `least`. */
function roundStep(least: number): number {
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].map((digit) => digit * power).find((step) => step >= least * (1 - 1e-9)) ?? 10 * power;
}

/** A table as CSV by RFC 4180: what is missing is empty. */
export function csv(rows: readonly (readonly (string | number | undefined)[])[]): string {
  const field = (value: string | number | undefined) => {
    const text = value === undefined ? "" : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return rows.map((row) => `${row.map(field).join(",")}\n`).join("");
}

/** A table as text: the first column to the left, the others to the right. */
export function textTable(rows: readonly (readonly string[])[]): string {
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  return rows.map((row) =>
    row.map((cell, i) => i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i])).join("  ").trimEnd()
  ).join("\n");
}
