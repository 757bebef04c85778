// What the two chunk kernels of the delta rule share: how products of rows of a chunk are formed, and how the state decays
// between two of its rows.
//
// Invocation local = 8 * i + w has the products of row i with the rows j = 4w .. 4w + 3 as one vector:
//
//            j: 0-3   4-7   8-11  ...  28-31
//   i = 0     | t0  |  t1  |  t2  |     t7  |
//   i = 1     | t8  |  t9  | t10  |    t15  |
//
// Rows come through workgroup memory, 8 words of 4 components at a time, word by word. After every 4 rows an entry is
// left out, so that neighbours that read every 4th row meet different banks.

import { unroll } from "./kernel.ts";

/** Most rows of a chunk. */
export const DELTA_CHUNK = 32;

/** Invocations of a workgroup that has a chunk. */
export const DELTA_THREADS = 256;

const WORDS = 8;
const LINE = DELTA_CHUNK / 4 * 5;

/** Workgroup memory of the products: a tile of each of the arrays, the products (by i, then w), and logs of decays. */
export function deltaDeclarations(arrays: readonly string[], decay: boolean): string {
  return `${
    unroll(arrays.length, (i) => `var<workgroup> ${arrays[i]}Tile: array<vec4<f32>, ${WORDS * LINE}>;`)
  }
var<workgroup> products: array<vec4<f32>, ${DELTA_CHUNK * DELTA_CHUNK / 4}>;
${
    !decay ? "" : `var<workgroup> logs: array<f32, ${DELTA_CHUNK}>;
fn logUpTo(j: u32, i: u32) -> f32 {
  return select(0.0, logs[j], j <= i);
}
// Decay from rows 4w .. 4w + 3 to row i, for those up to i. Logs are added, never subtracted: where the state is wiped out
// between other rows, their small decays would be lost in the difference of two large sums.
fn decays(w: u32, i: u32) -> vec4<f32> {
  var last = 0.0;
  for (var j = 4u * w + 4u; j <= i; j++) { last += logs[j]; }
  let z = last + logUpTo(4u * w + 3u, i);
  let y = z + logUpTo(4u * w + 2u, i);
  let x = y + logUpTo(4u * w + 1u, i);
  return exp(vec4<f32>(x, y, z, last));
}`
  }`;
}

/** Loads the logs of the rows' decays; a barrier must follow. Rows over the end do not decay. */
export const LOAD_LOGS = `if (local < ${DELTA_CHUNK}u) {
    logs[local] = select(
      0.0,
      logDecay[(first + min(local, count - 1u)) * params.decayStride + params.decayOffset + kvHead],
      local < count,
    );
  }`;

/**
 * Sums `sums` (a vector) over the components of a head: row i of array `left` times the rows 4w .. 4w + 3 of array
 * `right`. `starts` gives each array's first component in row 0 of the chunk, and its stride; `words` is the number of words of
 * a head, in WGSL. Begins with a barrier.
 */
export function deltaProducts(
  words: string,
  left: string,
  right: string,
  starts: Readonly<Record<string, readonly [start: string, stride: string]>>,
): string {
  const loads = Object.entries(starts).map(([array, [start, stride]]) =>
    `{
      let at = ${start} + min(lineRow, count - 1u) * ${stride} + 4u * min(word, ${words} - 1u);
      let loaded = vec4<f32>(${array}[at], ${array}[at + 1u], ${array}[at + 2u], ${array}[at + 3u]);
      ${array}Tile[line] = select(vec4<f32>(), loaded, word < ${words});
    }`
  );
  return `let i = local / ${WORDS}u;
  let w = local % ${WORDS}u;
  let lineRow = i;
  let line = w * ${LINE}u + i + i / 4u;
  var sums = vec4<f32>();
  for (var slice = 0u; slice < ${words}; slice += ${WORDS}u) {
    workgroupBarrier();
    let word = slice + w;
    ${loads.join("\n")}
    workgroupBarrier();
    ${
    unroll(WORDS, (k) =>
      `{
      let a = ${left}Tile[${k * LINE}u + i + i / 4u];
      let at = ${k * LINE}u + 5u * w;
      sums += vec4<f32>(
        dot(a, ${right}Tile[at]), dot(a, ${right}Tile[at + 1u]), dot(a, ${right}Tile[at + 2u]), dot(a, ${right}Tile[at + 3u]),
      );
    }`)
  }
  }`;
}
