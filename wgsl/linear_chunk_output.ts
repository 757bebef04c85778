// Third pass of linear attention in chunks: what each row reads from the state before its tile and from the tile itself.
//
//   o_i = (decay to i) * S^T q_i  +  sum over rows j <= i of the tile of (decay from j to i) * (q_i . k_j) v_j
//
// A workgroup of 128 owns one query head of one tile (64 rows) and up to 128 value columns. Invocation (tr, tc) has the
// rows 8 tr ... 8 tr + 7 and, for each, four keys of the scores (a vector s) and one or two words of the output (o):
//
//                      keys 4 tc ...     words tc, tc + 16
//   rows 8 tr ...   |   s0 ... s7     |   o0_0 ... o7_1          tr = 0 ... 7, tc = 0 ... 15
//
// Along the key components, queries come through workgroup memory as they are, keys as words of four keys, the state row
// by row: one read of a query's component serves scores and outputs. Then the scores, masked and decayed, take the
// queries' place there, 16 keys at a time, and the values that of the state.

import { defineKernel, type Kernel, read, unroll, write } from "./kernel.ts";
import {
  checkLinearSizes,
  COMPONENTS,
  fourArray,
  LINEAR_TILE,
  type LinearDecay,
  loadFour,
  POSITION_DECAY,
  TOKEN_DECAY,
} from "./linear_decay.ts";
import { ROW_STRUCT, TILE_STRUCT } from "./tables.ts";

/** Compiled-in choices of {@linkcode linearChunkOutput}. */
export interface LinearChunkOutputSpec {
  /** Components of a query's and a key's head, a multiple of 4 up to 256. */
  readonly keySize: number;
  /** Components of a value's head, a multiple of 4 up to 256. */
  readonly valueSize: number;
  /** Decay; `none` where rows see all of their sequence. */
  readonly decay: LinearDecay;
  /** Whether rows see only themselves and earlier ones; else the states hold the sums over all rows. */
  readonly causal: boolean;
  /** Whether offsets and strides of q, k and v are multiples of 4. */
  readonly aligned: boolean;
}

const THREADS = 128;
const OWN = 8;
/** Neighbouring threads that share rows. */
const ACROSS = 16;
const ROW_GROUPS = LINEAR_TILE / 4;
/** Keys of a step through the tile's rows. */
const KEYS = 16;

/**
 * Writes `out` [rows, heads * valueSize] for the query heads of the KV heads [firstHead, firstHead + stateHeads). Bindings `q`,
 * when causal `k`, `v` and `rowTable`, `tiles`, `tileStates` [tiles][stateHeads][keySize][valueSize], with a decay `decays` (slopes
 * by KV head, or logarithms by row), `out`.
 *
 * @throws {RangeError} when a size does not fit.
 */
export function linearChunkOutput(spec: LinearChunkOutputSpec): Kernel {
  const { keySize, valueSize, decay, causal, aligned } = spec;
  checkLinearSizes({ keySize, valueSize });
  const valueWords = valueSize / 4;
  const blocks = Math.ceil(valueWords / (2 * ACROSS));
  const words = Math.ceil(valueWords / blocks);
  /** Words of a thread. */
  const each = Math.ceil(words / ACROSS);
  // Key components of a step: what fits the workgroup memory that the values need anyway.
  const parts = each === 1 ? 4 : 2;
  const depth = parts * 4;
  const stateLoads = depth * words;
  const all = (piece: (r: number) => string): string => unroll(OWN, piece);
  const wordOf = (e: number): string => `min(tc + ${e * ACROSS}u, ${words - 1}u)`;

  /** Component c of the vectors a0 ... a7 times the words b, for all outputs of a thread. */
  const outputProduct = (c: number): string =>
    all((r) =>
      unroll(each, (e) => `o${r}_${e} = fma(vec4<f32>(a${r}.${COMPONENTS[c]}), b${e}, o${r}_${e});`)
    );
  const logs = decay === "position"
    ? `let slope = decays[head];
  let before = max(tile.first, 1u) - 1u;
  let continued = tile.first > 0u && rowTable[before].sequence == tile.sequence;
  let start = rowTable[select(tile.first, before, continued)].position;
  if (local < ${LINEAR_TILE}u) { positions[local] = rowTable[min(tile.first + local, last)].position; }`
    : decay === "token"
    ? `if (local < ${LINEAR_TILE}u) { logs[local] = logDecayOf(min(tile.first + local, last), head); }`
    : "";
  /** Logarithms of the decays up to the thread's first row: from its keys in `log`, from before the tile in `entryLog`. */
  const firstLogs = `var log = vec4<f32>(0.0);
  var entryLog = 0.0;
  for (var i = 0u; i <= firstRow; i++) {
    log += select(vec4<f32>(0.0), vec4<f32>(logs[i]), keys < vec4<u32>(i));
    entryLog += logs[i];
  }`;
  const decayedScores = (r: number): string =>
    decay === "position"
      ? `s${r} *= vec4<f32>(${
        [0, 1, 2, 3].map((c) => `decayOver(slope, position - min(position, positions[firstKey + ${c}u]))`)
          .join(", ")
      });
    let entry = decayOver(slope, position - start);`
      // Sums of the rows' own logarithms between key and row: differences of sums from the first row on would lose digits.
      : `${
        r === 0 ? "" : `log += select(vec4<f32>(0.0), vec4<f32>(logs[row]), keys < vec4<u32>(row));
    entryLog += logs[row];`
      }
    s${r} *= exp(max(log, vec4<f32>(-200.0)));
    let entry = exp(max(entryLog, -200.0));`;
  const mask = all((r) =>
    `{
    let row = firstRow + ${r}u;
    ${decay === "position" ? "let position = positions[row];" : ""}
    ${decay === "none" ? "" : decayedScores(r)}
    s${r} = select(vec4<f32>(0.0), s${r}, keys <= vec4<u32>(row));
    ${decay === "none" ? "" : unroll(each, (e) => `o${r}_${e} *= entry;`)}
  }`
  );
  const within = `let firstKey = tc * 4u;
  let keys = vec4<u32>(firstKey) + vec4<u32>(0u, 1u, 2u, 3u);
  ${decay === "token" ? firstLogs : ""}
  ${mask}
  for (var start = 0u; start < tile.count; start += ${KEYS}u) {
    workgroupBarrier();
    if (firstKey >= start && firstKey < start + ${KEYS}u) {
      let line = (firstKey - start) / 4u * ${LINEAR_TILE}u + firstRow;
      ${all((r) => `rowTile[line + ${r}u] = s${r};`)}
    }
    for (var unit = local; unit < ${KEYS * words}u; unit += ${THREADS}u) {
      let row = min(tile.first + start + unit / ${words}u, last);
      let word = min(valueBlock * ${words}u + unit % ${words}u, ${valueWords - 1}u);
      wordTile[unit] = vFour(row * params.vStride + params.vOffset + head * ${valueSize}u + word * 4u);
    }
    workgroupBarrier();
    for (var part = 0u; part < ${KEYS / 4}u; part++) {
      ${all((r) => `let a${r} = rowTile[part * ${LINEAR_TILE}u + firstRow + ${r}u];`)}
      ${
    unroll(4, (c) =>
      `{
        ${unroll(each, (e) => `let b${e} = wordTile[(part * 4u + ${c}u) * ${words}u + ${wordOf(e)}];`)}
        ${outputProduct(c)}
      }`)
  }
    }
  }`;

  return defineKernel({
    name: `linearChunkOutput ${keySize}x${valueSize} decay ${decay}${causal ? "" : " whole"}${
      aligned ? "" : " unaligned"
    }`,
    parameters: {
      tiles: "u32",
      firstHead: "u32",
      stateHeads: "u32",
      groupSize: "u32",
      heads: "u32",
      qStride: "u32",
      qOffset: "u32",
      kStride: "u32",
      kOffset: "u32",
      vStride: "u32",
      vOffset: "u32",
      ...(decay === "token" ? { decayStride: "u32" as const, decayOffset: "u32" as const } : {}),
    },
    bindings: [
      read("q", fourArray(aligned)),
      ...(causal
        ? [read("k", fourArray(aligned)), read("v", fourArray(aligned)), read("rowTable", "array<Row>")]
        : []),
      read("tiles", "array<Tile>"),
      read("tileStates", "array<vec4<f32>>"),
      ...(decay === "none" ? [] : [read("decays", "array<f32>")]),
      write("out", "array<vec4<f32>>"),
    ],
    grid: ({ tiles, stateHeads, groupSize }) => [tiles, stateHeads * groupSize, blocks],
    body: `
${ROW_STRUCT}
${TILE_STRUCT}
${(causal ? ["q", "k", "v"] : ["q"]).map((name) => loadFour(name, aligned)).join("")}
${decay === "position" ? POSITION_DECAY : decay === "token" ? TOKEN_DECAY : ""}
// Queries by four components, later scores by four keys: a line of rows each.
var<workgroup> rowTile: array<vec4<f32>, ${Math.max(parts, KEYS / 4) * LINEAR_TILE}>;
// The state's rows, later those of values.
var<workgroup> wordTile: array<vec4<f32>, ${Math.max(stateLoads, KEYS * words)}>;
${causal ? `var<workgroup> keyTile: array<vec4<f32>, ${depth * ROW_GROUPS}>;` : ""}
${
      decay === "position"
        ? `var<workgroup> positions: array<u32, ${LINEAR_TILE}>;`
        : decay === "token"
        ? `var<workgroup> logs: array<f32, ${LINEAR_TILE}>;`
        : ""
    }

@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let tile = tiles[group.x];
  if (tile.count == 0u) { return; }
  let last = tile.first + tile.count - 1u;
  let queryHead = params.firstHead * params.groupSize + group.y;
  let head = queryHead / params.groupSize;
  let valueBlock = group.z;
  let tc = local % ${ACROSS}u;
  let firstRow = local / ${ACROSS}u * ${OWN}u;
  let state = (group.x * params.stateHeads + group.y / params.groupSize) * ${keySize * valueWords}u;
  ${logs}
  ${
      all((r) =>
        `${causal ? `var s${r} = vec4<f32>(0.0); ` : ""}${
          unroll(each, (e) => `var o${r}_${e} = vec4<f32>(0.0);`)
        }`
      )
    }
  for (var start = 0u; start < ${keySize}u; start += ${depth}u) {
    workgroupBarrier();
    // Components and rows over the end are 0 or repeat the last ones.
    for (var unit = local; unit < ${parts * LINEAR_TILE}u; unit += ${THREADS}u) {
      let at = start + unit % ${parts}u * 4u;
      let row = min(tile.first + unit / ${parts}u, last);
      let query = qFour(row * params.qStride + params.qOffset + queryHead * ${keySize}u + min(at, ${
      keySize - 4
    }u));
      rowTile[unit % ${parts}u * ${LINEAR_TILE}u + unit / ${parts}u] = select(vec4<f32>(0.0), query, at < ${keySize}u);
    }
    ${
      causal
        ? `for (var unit = local; unit < ${parts * ROW_GROUPS}u; unit += ${THREADS}u) {
      let at = min(start + unit % ${parts}u * 4u, ${keySize - 4}u);
      let first = tile.first + unit / ${parts}u * 4u;
      let column = params.kOffset + head * ${keySize}u + at;
      ${unroll(4, (c) => `let key${c} = kFour(min(first + ${c}u, last) * params.kStride + column);`)}
      let line = unit % ${parts}u * ${4 * ROW_GROUPS}u + unit / ${parts}u;
      ${
          unroll(4, (c) =>
            `keyTile[line + ${c * ROW_GROUPS}u] = vec4<f32>(${
              [0, 1, 2, 3].map((k) => `key${k}.${COMPONENTS[c]}`).join(", ")
            });`)
        }
    }`
        : ""
    }
    for (var unit = local; unit < ${stateLoads}u; unit += ${THREADS}u) {
      let component = min(start + unit / ${words}u, ${keySize - 1}u);
      let word = min(valueBlock * ${words}u + unit % ${words}u, ${valueWords - 1}u);
      wordTile[unit] = tileStates[state + component * ${valueWords}u + word];
    }
    workgroupBarrier();    for (var part = 0u; part < ${parts}u; part++) {
      ${all((r) => `let a${r} = rowTile[part * ${LINEAR_TILE}u + firstRow + ${r}u];`)}
      ${
      unroll(4, (c) =>
        `{
        ${unroll(each, (e) => `let b${e} = wordTile[(part * 4u + ${c}u) * ${words}u + ${wordOf(e)}];`)}
        ${outputProduct(c)}
        ${
          causal
            ? `let key = keyTile[(part * 4u + ${c}u) * ${ROW_GROUPS}u + tc];
        ${all((r) => `s${r} = fma(vec4<f32>(a${r}.${COMPONENTS[c]}), key, s${r});`)}`
            : ""
        }
      }`)
    }
    }
  }
  ${causal ? within : ""}
  let firstOut = (tile.first + firstRow) * params.heads + queryHead;
  ${
      all((r) =>
        `if (firstRow + ${r}u < tile.count) {
    let first = (firstOut + ${r}u * params.heads) * ${valueWords}u + valueBlock * ${words}u + tc;
    ${
          unroll(each, (e) => {
            const inBlock = (e + 1) * ACROSS > words ? [`tc + ${e * ACROSS}u < ${words}u`] : [];
            const inHead = words * blocks !== valueWords
              ? [`valueBlock * ${words}u + tc + ${e * ACROSS}u < ${valueWords}u`]
              : [];
            const conditions = [...inBlock, ...inHead].join(" && ");
            const store = `out[first + ${e * ACROSS}u] = o${r}_${e};`;
            return conditions ? `if (${conditions}) { ${store} }` : store;
          })
        }
  }`
      )
    }
}
`,
  });
}
