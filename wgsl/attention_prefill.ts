// Causal softmax attention of many rows, without ever storing the scores (FlashAttention, arXiv:2205.14135).
//
// A workgroup owns one query head and one tile: up to 64 consecutive rows of one sequence. Each `parts` neighbouring
// threads share some rows (1, 2 or 4 of them) and each has every `parts`-th word (4 columns) of them:
//
//                 word 0   word 1   word 2   word 3   word 4 ...
//   rows 0-3    |   t0   |   t1   |   t2   |   t3   |   t0   |      queries and outputs of these rows and words stay in
//   rows 4-7    |   t4   |   t5   |   t6   |   t7   |   t4   |      registers from the first key to the last
//
// Keys and values come through workgroup memory, a tile of slots at a time, and are read from there by all threads at
// the same address; one read serves all rows of a thread. Four keys (a block) are scored together: the parts of a score
// are summed over neighbouring threads by shuffles (without subgroups: through workgroup memory), then each of them
// has the scores and goes on with the online softmax and its own columns of the output. Keys are stored transposed by
// blocks, one vector holding the same column of four keys, so that scores are sums over columns of vectors.
//
// Blocks are aligned to the sequence's slot 0 and summed in order, each row on its own and by explicit fma; a block that
// a row cannot see changes nothing of it. So a row's result is the same to the bit in whatever tile and step it comes.

import { defineKernel, type Kernel, read, type StorageType, unroll, write } from "./kernel.ts";
import { EXTENT_STRUCT, NONE, ROW_STRUCT, TILE_STRUCT } from "./tables.ts";

/** Compiled-in choices of {@linkcode attentionPrefill}. */
export interface AttentionPrefillSpec {
  /** Storage type of the cache. */
  readonly dtype: StorageType;
  /** Numbers in a head, a multiple of 4 up to 256. */
  readonly headSize: number;
  /** Whether subgroup operations are used. */
  readonly subgroups: boolean;
  /**
   * Whether slots are in the order of positions, as in a cache that only ever appends: then a tile reads no slot behind
   * that of its last row. Changes no result where it holds.
   */
  readonly ordered: boolean;
  /** Whether the log of each row's sum of exp(score) is put out as well. Default: false. */
  readonly logSumExp?: boolean;
  /** Whether tiles count rows by a table of row numbers, as when some were picked. Default: false. */
  readonly mapped?: boolean;
}

/** Most rows of a tile. */
export const TILE_ROWS = 64;

/** Bytes of workgroup memory for a tile of keys and values. */
const TILE_BYTES = 16384;
const MAX_TILE_SLOTS = 64;

/** Tile sizes of a head size. */
interface Decisions {
  readonly words: number;
  /** Neighbouring threads that share rows, words each of them has of a row, and words of a row with padding. */
  readonly parts: number;
  readonly own: number;
  readonly stride: number;
  readonly rows: number;
  readonly threads: number;
  readonly slots: number;
}

function decide(headSize: number): Decisions {
  const words = headSize / 4;
  // Shuffles stay within four threads, the smallest subgroup there is.
  const parts = words >= 3 ? 4 : words;
  const own = Math.ceil(words / parts);
  const stride = own * parts;
  // Queries and outputs take 8 * own * rows registers.
  const rows = own <= 4 ? 4 : own <= 8 ? 2 : 1;
  const slots = Math.min(MAX_TILE_SLOTS, 4 * Math.floor(TILE_BYTES / (2 * 16 * 4 * stride)));
  return { words, parts, own, stride, rows, threads: TILE_ROWS * parts / rows, slots };
}

const COMPONENTS = ["x", "y", "z", "w"];

/**
 * `out[target * outStride + head * headSize + d]` for the rows of all tiles and the query heads of the KV heads
 * [firstHead, firstHead + arenaHeads): softmax attention, with scores `scale * dot(q, k)`, over the slots of the row's
 * extent whose position is not later than the row's; 0 for a row that sees no slot. A tile has at most
 * {@linkcode TILE_ROWS} consecutive rows of one sequence, and may have none; `tiles` is the number of tiles. The row
 * tile.first + i goes to the output row `target` = tile.output + i.
 *
 * With `logSumExp` a last binding: `logSumExps[row * heads + head]` is the natural log of the sum of exp(score) over
 * those slots, by the row's number among the queries; -3.4e38 for a row that sees no slot.
 *
 * With `mapped` a last binding `map`: the rows of a tile are map[tile.first + i], in ascending order.
 *
 * @throws {RangeError} when the head size does not fit.
 */
export function attentionPrefill(spec: AttentionPrefillSpec): Kernel {
  const { dtype, headSize, subgroups, ordered, logSumExp = false, mapped = false } = spec;
  const rowOf = (index: string): string => mapped ? `map[${index}]` : index;
  if (!(headSize >= 4 && headSize <= 256 && headSize % 4 === 0)) {
    throw new RangeError(`headSize must be a multiple of 4 from 4 to 256: current value is ${headSize}`);
  }
  const { words, parts, own, stride, rows, threads, slots } = decide(headSize);
  const padded = stride !== words;
  const units = slots / 4 * stride;

  const wordOf = (i: number): string =>
    padded ? `min(part + ${i * parts}u, ${words - 1}u)` : `part + ${i * parts}u`;
  const loadQuery = (r: number): string =>
    unroll(own, (i) => {
      const value = `params.scale * q[query${r} + ${wordOf(i)}]`;
      return `let q${r}_${i} = ${
        padded ? `select(vec4<f32>(0.0), ${value}, part + ${i * parts}u < ${words}u)` : value
      };`;
    });

  // Scores of a block: for each column of this thread, the block's four keys at once.
  const score = unroll(own, (i) =>
    unroll(4, (c) =>
      `key = keyTile[keyStart + ${(i * 4 + c) * parts}u];
      ${unroll(rows, (r) => `s${r} = fma(vec4<f32>(q${r}_${i}.${COMPONENTS[c]}), key, s${r});`)}`));
  const exchange = subgroups
    ? unroll(
      rows,
      (r) =>
        [1, 2].filter((distance) => distance < parts).map((distance) =>
          `s${r} += subgroupShuffleXor(s${r}, ${distance}u);`
        ).join(" "),
    )
    : parts === 1
    ? ""
    // Two buffers by turns, so that one barrier a block is enough.
    : `let buffer = block % 2u * ${rows * threads}u;
      ${unroll(rows, (r) => `exchange[buffer + ${r * threads}u + local] = s${r};`)}
      workgroupBarrier();
      ${
      unroll(rows, (r) => {
        const at = (i: number): string => `exchange[buffer + ${r * threads}u + local - part + ${i}u]`;
        return `s${r} = ${
          parts === 4 ? `(${at(0)} + ${at(1)}) + (${at(2)} + ${at(3)})` : `${at(0)} + ${at(1)}`
        };`;
      })
    }`;
  const softmax = unroll(rows, (r) =>
    `let seen${r} = positions <= vec4<u32>(position${r});
      s${r} = select(vec4<f32>(MASKED), s${r}, seen${r});
      let next${r} = max(max(max(s${r}.x, s${r}.y), max(s${r}.z, s${r}.w)), maximum${r});
      let p${r} = select(vec4<f32>(0.0), exp(s${r} - vec4<f32>(next${r})), seen${r});
      var factor${r} = 1.0;
      if (next${r} > maximum${r}) {
        factor${r} = exp(maximum${r} - next${r});
        maximum${r} = next${r};
        ${unroll(own, (i) => `o${r}_${i} *= factor${r};`)}
      }
      sum${r} = fma(sum${r}, factor${r}, (p${r}.x + p${r}.y) + (p${r}.z + p${r}.w));`);
  const output = unroll(
    4,
    (k) =>
      unroll(own, (i) =>
        `value = valueTile[valueStart + ${k * stride + i * parts}u];
      ${unroll(rows, (r) => `o${r}_${i} = fma(vec4<f32>(p${r}.${COMPONENTS[k]}), value, o${r}_${i});`)}`),
  );

  // A unit is one word of a block's four slots. Slots over the end repeat the last one and have no position.
  const fill = `let block = unit / ${stride}u;
      let word = unit % ${stride}u;
      let slot = vec4<u32>(tileStart + block * 4u) + vec4<u32>(0u, 1u, 2u, 3u);
      let source = (vec4<u32>(extent.base) + min(slot, vec4<u32>(end - 1u))) * ${words}u + ${
    padded ? `min(word, ${words - 1}u)` : "word"
  };
      let k0 = vec4<f32>(keys[source.x]);
      let k1 = vec4<f32>(keys[source.y]);
      let k2 = vec4<f32>(keys[source.z]);
      let k3 = vec4<f32>(keys[source.w]);
      let v0 = values[source.x];
      let v1 = values[source.y];
      let v2 = values[source.z];
      let v3 = values[source.w];
      let transposed = (block * ${own}u + word / ${parts}u) * ${4 * parts}u + word % ${parts}u;
      ${
    unroll(4, (c) => {
      const of = COMPONENTS[c];
      return `keyTile[transposed + ${c * parts}u] = vec4<f32>(k0.${of}, k1.${of}, k2.${of}, k3.${of});`;
    })
  }
      ${unroll(4, (k) => `valueTile[(block * 4u + ${k}u) * ${stride}u + word] = vec4<f32>(v${k});`)}
      if (word == 0u) {
        let index = vec4<u32>(extent.positions) + min(slot, vec4<u32>(end - 1u));
        let found = vec4<u32>(
          slotPositions[index.x], slotPositions[index.y], slotPositions[index.z], slotPositions[index.w],
        );
        positionTile[block] = select(vec4<u32>(${NONE}u), found, slot < vec4<u32>(end));
      }`;

  const body = `
${ROW_STRUCT}
${EXTENT_STRUCT}
${TILE_STRUCT}
const MASKED = -3.4e38;
var<workgroup> keyTile: array<vec4<f32>, ${slots * stride}>;
var<workgroup> valueTile: array<vec4<f32>, ${slots * stride}>;
var<workgroup> positionTile: array<vec4<u32>, ${slots / 4}>;
${subgroups || parts === 1 ? "" : `var<workgroup> exchange: array<vec4<f32>, ${2 * threads * rows}>;`}

@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let tile = tiles[group.x];
  if (tile.count == 0u) { return; }
  let groupSize = params.heads / params.kvHeads;
  let head = params.firstHead * groupSize + group.y;
  let extent = extents[(params.layer * params.sequences + tile.sequence) * params.kvHeads + head / groupSize];
  ${
    ordered
      ? `let end = min(extent.length, extent.start + rowTable[${
        rowOf("tile.first + tile.count - 1u")
      }].index + 1u);`
      : "let end = extent.length;"
  }
  let part = local % ${parts}u;
  // Rows over the tile's end repeat the last one and are not stored.
  ${
    unroll(rows, (r) =>
      `let inTile${r} = local / ${parts}u * ${rows}u + ${r}u;
  let row${r} = ${rowOf(`tile.first + min(inTile${r}, tile.count - 1u)`)};
  let position${r} = rowTable[row${r}].position;
  let query${r} = (row${r} * params.qStride + params.qOffset) / 4u + head * ${words}u;
  ${loadQuery(r)}
  ${unroll(own, (i) => `var o${r}_${i} = vec4<f32>(0.0);`)}
  var maximum${r} = MASKED;
  var sum${r} = 0.0;`)
  }
  for (var tileStart = 0u; tileStart < end; tileStart += ${slots}u) {
    workgroupBarrier();
    for (var unit = local; unit < ${units}u; unit += ${threads}u) {
      ${fill}
    }
    workgroupBarrier();
    let blocks = (min(${slots}u, end - tileStart) + 3u) / 4u;
    for (var block = 0u; block < blocks; block++) {
      let keyStart = block * ${4 * stride}u + part;
      let valueStart = keyStart;
      let positions = positionTile[block];
      ${unroll(rows, (r) => `var s${r} = vec4<f32>(0.0);`)}
      var key: vec4<f32>;
      var value: vec4<f32>;
      ${score}
      ${exchange}
      ${softmax}
      ${output}
    }
  }
  ${
    unroll(rows, (r) =>
      `if (inTile${r} < tile.count) {
    let target${r} = (tile.output + inTile${r}) * params.outStride / 4u + head * ${words}u + part;
    let inverse = select(1.0 / sum${r}, 0.0, sum${r} == 0.0);
    ${
        unroll(own, (i) => {
          const store = `out[target${r} + ${i * parts}u] = o${r}_${i} * inverse;`;
          return padded && (i + 1) * parts > words
            ? `if (part + ${i * parts}u < ${words}u) { ${store} }`
            : store;
        })
      }
    ${
        // The sum is at least 1, the greatest score's own part, except where nothing is seen.
        logSumExp
          ? `if (part == 0u) { logSumExps[row${r} * params.heads + head] = maximum${r} + log(max(sum${r}, 1.0)); }`
          : ""}
  }`)
  }
}
`;
  return defineKernel({
    name: `attentionPrefill ${dtype} head ${headSize}${ordered ? " ordered" : ""}${
      subgroups ? " subgroups" : ""
    }${logSumExp ? " logSumExp" : ""}${mapped ? " mapped" : ""}`,
    f16: dtype === "f16",
    parameters: {
      tiles: "u32",
      heads: "u32",
      kvHeads: "u32",
      layer: "u32",
      sequences: "u32",
      firstHead: "u32",
      arenaHeads: "u32",
      qStride: "u32",
      qOffset: "u32",
      scale: "f32",
      outStride: "u32",
    },
    bindings: [
      read("q", "array<vec4<f32>>"),
      read("keys", `array<vec4<${dtype}>>`),
      read("values", `array<vec4<${dtype}>>`),
      read("slotPositions", "array<u32>"),
      read("rowTable", "array<Row>"),
      read("extents", "array<Extent>"),
      read("tiles", "array<Tile>"),
      write("out", "array<vec4<f32>>"),
      ...(logSumExp ? [write("logSumExps", "array<f32>")] : []),
      ...(mapped ? [read("map", "array<u32>")] : []),
    ],
    grid: ({ tiles, heads, kvHeads, arenaHeads }) => [tiles, arenaHeads * (heads / kvHeads), 1],
    body,
  });
}
