// Rotary position embedding of a step's queries and keys, and the store of keys and values into the cache.
//
// qkv, one row:   [ q heads ........... | k heads ... | v heads ... ]
//                   rotated in place      rotated       as it is
//                                         to `keys`     to `values`   at slot start + row.index of the head's extent
//
// One invocation has one item: a word (four numbers, or one where pairs do not come in fours) and its partner. The
// items of a row are the rotated words of its q heads, then the words of its k heads, then those of its v heads; items
// of all rows lie in one flat index.
//
//   half          pairs (i, i + pairs): two words `pairs` apart, rotated together by one invocation
//   interleaved   pairs (2i, 2i + 1): two pairs in a word
//
// Angles come from a table made in f64: position = 256 * high + low, and cos and sin of the two parts are combined by
// the addition formulas, so that large positions are as exact as small ones.

import {
  defineKernel,
  foldGrid,
  type Kernel,
  type Parameters,
  read,
  type StorageType,
  write,
} from "./kernel.ts";
import { EXTENT_STRUCT, ROW_STRUCT, STATE_STRUCT } from "./tables.ts";

/** Which components of a head are rotated together. */
export type RotaryLayout = "half" | "interleaved" | "none";

/** Compiled-in choices of {@linkcode ropeStore}. */
export interface RopeStoreSpec {
  /** Storage type of the cache. */
  readonly dtype: StorageType;
  /** Numbers in a head, a multiple of 4. */
  readonly headSize: number;
  /** How pairs are laid out; `none` only stores, and has no binding `ropeTable`. */
  readonly rotaryLayout: RotaryLayout;
  /** How many components from a head's first on are rotated, an even number. Default: all. */
  readonly rotarySize?: number;
}

const THREADS = 256;

/** Positions in the fine part of `ropeTable`. */
export const FINE_POSITIONS = 256;

/**
 * Rotates the queries in `qkv` in place (if `rotateQ` is 1) and writes the rotated keys and the values of the KV heads
 * [firstHead, firstHead + arenaHeads) to their slots. Nothing is stored for a sequence that is done or for a slot
 * beyond its extent's capacity. Numbers beyond the range of f16 are stored as its largest.
 *
 * `ropeTable` holds (cos, sin) of frequency * position: {@linkcode FINE_POSITIONS} rows of `rotarySize / 2` entries for
 * the positions 0, 1, 2 ..., then rows for the positions 0, 256, 512 ... up to the last one in use.
 *
 * @throws {RangeError} when the head size or the rotary size does not fit.
 */
export function ropeStore(spec: RopeStoreSpec): Kernel {
  const { dtype, headSize, rotaryLayout } = spec;
  const rotarySize = rotaryLayout === "none" ? 0 : spec.rotarySize ?? headSize;
  if (headSize % 4 !== 0 || !(headSize > 0)) {
    throw new RangeError(`headSize must be a positive multiple of 4: current value is ${headSize}`);
  }
  if (rotarySize % 2 !== 0 || rotarySize > headSize) {
    throw new RangeError(
      `rotarySize must be even and at most headSize (${headSize}): current value is ${rotarySize}`,
    );
  }
  const pairs = rotarySize / 2;
  const half = rotaryLayout === "half";
  const width = half ? (pairs % 4 === 0 ? 4 : 1) : rotarySize % 4 === 0 ? 4 : 1;
  const words = headSize / width;
  // An item rotates one word (interleaved in fours) or two.
  const single = !half && width === 4;
  const rotated = single ? rotarySize / 4 : pairs / width;
  const copied = (headSize - rotarySize) / width;
  const partner = half ? pairs / width : 1;
  const floats = width === 4 ? "vec4<f32>" : "f32";
  const stored = width === 4 ? `vec4<${dtype}>` : dtype;
  const toStored = (value: string): string =>
    dtype === "f32" ? value : `${stored}(clamp(${value}, ${floats}(-65504.0), ${floats}(65504.0)))`;

  const rotate = single
    ? `fn rotate(a: vec4<f32>, item: u32, position: u32) -> vec4<f32> {
  let t0 = turn(2u * item, position);
  let t1 = turn(2u * item + 1u, position);
  return vec4<f32>(
    a.x * t0.x - a.y * t0.y,
    a.y * t0.x + a.x * t0.y,
    a.z * t1.x - a.w * t1.y,
    a.w * t1.x + a.z * t1.y,
  );
}`
    : `struct Rotated { a: ${floats}, b: ${floats} }
fn rotate(a: ${floats}, b: ${floats}, item: u32, position: u32) -> Rotated {
  ${
      width === 4
        ? `let t0 = turn(4u * item, position);
  let t1 = turn(4u * item + 1u, position);
  let t2 = turn(4u * item + 2u, position);
  let t3 = turn(4u * item + 3u, position);
  let c = vec4<f32>(t0.x, t1.x, t2.x, t3.x);
  let s = vec4<f32>(t0.y, t1.y, t2.y, t3.y);`
        : `let t = turn(item, position);
  let c = t.x;
  let s = t.y;`
    }
  return Rotated(a * c - b * s, b * c + a * s);
}`;
  /** Word of item `item` in its head. */
  const firstWord = half || single ? "item" : "2u * item";
  const body = `
${ROW_STRUCT}
${EXTENT_STRUCT}
${STATE_STRUCT}
${
    rotarySize === 0 ? "" : `fn turn(pair: u32, position: u32) -> vec2<f32> {
  let low = ropeTable[(position % ${FINE_POSITIONS}u) * ${pairs}u + pair];
  let high = ropeTable[(${FINE_POSITIONS}u + position / ${FINE_POSITIONS}u) * ${pairs}u + pair];
  return vec2<f32>(low.x * high.x - low.y * high.y, low.y * high.x + low.x * high.y);
}
${rotate}`
  }
@compute @workgroup_size(${THREADS})
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32
) {
  let queryItems = params.rotateQ * params.heads * ${rotated}u;
  let keyItems = params.arenaHeads * ${rotated + copied}u;
  let rowItems = queryItems + keyItems + params.arenaHeads * ${words}u;
  let index = (group.x + group.y * groups.x) * ${THREADS}u + local;
  let rowIndex = index / rowItems;
  if (rowIndex >= params.rows) { return; }
  let row = rowTable[rowIndex];
  var item = index % rowItems;
  ${
    rotarySize === 0 ? "" : `if (item < queryItems) {
    let head = item / ${rotated}u;
    item %= ${rotated}u;
    let word = (rowIndex * params.stride + params.qOffset) / ${width}u + head * ${words}u + ${firstWord};
    ${
      single
        ? "qkv[word] = rotate(qkv[word], item, row.position);"
        : `let turned = rotate(qkv[word], qkv[word + ${partner}u], item, row.position);
    qkv[word] = turned.a;
    qkv[word + ${partner}u] = turned.b;`
    }
    return;
  }`
  }
  if (states[row.sequence].done != 0u) { return; }
  item -= queryItems;
  let isKey = item < keyItems;
  item = select(item - keyItems, item, isKey);
  let headItems = select(${words}u, ${rotated + copied}u, isKey);
  let head = params.firstHead + item / headItems;
  item %= headItems;
  let extent = extents[(params.layer * params.sequences + row.sequence) * params.kvHeads + head];
  let slot = extent.start + row.index;
  if (slot >= extent.capacity) { return; }
  let destination = (extent.base + slot) * ${words}u;
  if (!isKey) {
    let source = (rowIndex * params.stride + params.vOffset) / ${width}u + head * ${words}u;
    values[destination + item] = ${toStored("qkv[source + item]")};
    return;
  }
  let source = (rowIndex * params.stride + params.kOffset) / ${width}u + head * ${words}u;
  ${
    rotarySize === 0 ? "" : `if (item < ${rotated}u) {
    let word = ${firstWord};
    ${
      single
        ? `let turned = rotate(qkv[source + word], item, row.position);
    keys[destination + word] = ${toStored("turned")};`
        : `let turned = rotate(qkv[source + word], qkv[source + word + ${partner}u], item, row.position);
    keys[destination + word] = ${toStored("turned.a")};
    keys[destination + word + ${partner}u] = ${toStored("turned.b")};`
    }
    return;
  }`
  }
  let word = item - ${rotated}u + ${rotarySize / width}u;
  keys[destination + word] = ${toStored("qkv[source + word]")};
}
`;
  const items = ({ rows, heads, arenaHeads, rotateQ }: Parameters): number =>
    rows * (rotateQ * heads * rotated + arenaHeads * (rotated + copied + words));
  return defineKernel({
    name: `ropeStore ${dtype} head ${headSize} ${rotaryLayout}${rotarySize ? ` ${rotarySize}` : ""}`,
    f16: dtype === "f16",
    parameters: {
      rows: "u32",
      heads: "u32",
      kvHeads: "u32",
      stride: "u32",
      qOffset: "u32",
      kOffset: "u32",
      vOffset: "u32",
      layer: "u32",
      sequences: "u32",
      firstHead: "u32",
      arenaHeads: "u32",
      rotateQ: "u32",
    },
    bindings: [
      write("qkv", `array<${floats}>`),
      ...(rotarySize === 0 ? [] : [read("ropeTable", "array<vec2<f32>>")]),
      read("rowTable", "array<Row>"),
      read("extents", "array<Extent>"),
      read("states", "array<SequenceState>"),
      write("keys", `array<${stored}>`),
      write("values", `array<${stored}>`),
    ],
    grid: (parameters) => [...foldGrid(Math.ceil(items(parameters) / THREADS)), 1],
    body,
  });
}
