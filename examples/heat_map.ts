// Small heat maps in rows and columns, of shares from 0 to 1: SVG.

import { element, label, svgPage } from "./svg.ts";

/** One small map: rows of shares; where one is missing, nothing was measured. */
export type HeatMap = readonly (readonly (number | undefined)[])[];

/** What stands around the maps. */
export interface HeatMapTable {
  readonly title: string;
  /** What the rows and columns of each map are. */
  readonly note: string;
  readonly columns: readonly string[];
  /** A row of maps with its name. */
  readonly rows: readonly { readonly name: string; readonly maps: readonly (HeatMap | undefined)[] }[];
  /** Names of each map's rows and columns, written beside the first row of maps and below the last one. */
  readonly mapRows: readonly string[];
  readonly mapColumns: readonly string[];
}

/** Colour of a share: from dark red over yellow to green, readable in grey as dark to light. */
function colorOf(share: number): string {
  const stops = [[122, 18, 40], [214, 96, 60], [250, 210, 120], [190, 226, 150], [120, 200, 130]];
  const place = Math.max(0, Math.min(1, share)) * (stops.length - 1);
  const low = Math.min(stops.length - 2, Math.floor(place));
  const channel = (i: number) =>
    Math.round(stops[low][i] + (stops[low + 1][i] - stops[low][i]) * (place - low));
  return `rgb(${channel(0)},${channel(1)},${channel(2)})`;
}

/** A table of small heat maps, with their overall shares written above each and a scale below. */
export function heatMaps({ title, note, columns, rows, mapRows, mapColumns }: HeatMapTable): string {
  const [cell, gap, left, top] = [15, 22, 170, 76];
  const [mapWidth, mapHeight] = [cell * mapColumns.length, cell * mapRows.length];
  const [stepX, stepY] = [mapWidth + gap, mapHeight + gap];
  const middle = { "text-anchor": "middle" };
  const shapes = [
    label(16, 24, title, { "font-size": 15, "font-weight": "bold" }),
    label(16, 42, note, { fill: "#555" }),
    ...columns.map((name, i) =>
      label(left + i * stepX + mapWidth / 2, top - 16, name, { ...middle, "font-weight": "bold" })
    ),
  ];
  rows.forEach(({ name, maps }, row) => {
    const y = top + row * stepY;
    shapes.push(label(16, y + mapHeight / 2 + 4, name));
    mapRows.forEach((text, i) =>
      shapes.push(
        label(left - 6, y + i * cell + 11, text, { "text-anchor": "end", "font-size": 9, fill: "#777" }),
      )
    );
    maps.forEach((map, column) => {
      const x = left + column * stepX;
      if (!map) {
        shapes.push(
          element("rect", { x, y, width: mapWidth, height: mapHeight, fill: "#eee" }),
          label(x + mapWidth / 2, y + mapHeight / 2 + 4, "–", { ...middle, fill: "#777" }),
        );
        return;
      }
      map.forEach((values, i) =>
        values.forEach((share, j) => {
          const place = { x: x + j * cell, y: y + i * cell, width: cell - 1, height: cell - 1 };
          shapes.push(element("rect", { ...place, fill: share === undefined ? "#eee" : colorOf(share) }));
        })
      );
    });
  });
  const bottom = top + rows.length * stepY - gap;
  columns.forEach((_, column) =>
    mapColumns.forEach((text, i) =>
      shapes.push(
        label(left + column * stepX + (i + 0.5) * cell - 0.5, bottom + 11, text, {
          ...middle,
          "font-size": 7,
          fill: "#777",
        }),
      )
    )
  );
  const scale = [0, 0.25, 0.5, 0.75, 1];
  scale.forEach((share, i) => {
    const x = left + i * 46;
    shapes.push(
      element("rect", { x, y: bottom + 26, width: 12, height: 12, fill: colorOf(share) }),
      label(x + 16, bottom + 36, `${share * 100} %`, { "font-size": 10 }),
    );
  });
  const width = Math.max(left + columns.length * stepX, 24 + 6.2 * Math.max(note.length, title.length * 1.3));
  return svgPage(width, bottom + 52, shapes);
}
