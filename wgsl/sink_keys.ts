// Keys of a text's first tokens that move along: after every eviction they are rotated anew, so that they stand right
// before the oldest of the other tokens that are left (StreamingLLM, arXiv:2309.17453).
//
//   positions   0 1 2 3 | evicted ........ | 57 58 59 ...      sinks 4, gap 53
//   stand at    53 54 55 56                  57 58 59 ...
//
// Rotating a key again and again would wear it off. The keys are saved as they were stored first, and each rotation, by
// the gap, starts from there. One workgroup a (sequence, KV head); its invocations lie along the slots.

import { defineKernel, type Kernel, read, type StorageType, write } from "./kernel.ts";
import { FINE_POSITIONS, type RotaryLayout } from "./rope_store.ts";
import { EXTENT_STRUCT, NONE } from "./tables.ts";

/** Compiled-in choices of {@linkcode saveSinkKeys}. */
export interface SaveSinkKeysSpec {
  /** Storage type of the keys. */
  readonly dtype: StorageType;
  /** Numbers in a head. */
  readonly headSize: number;
}

/** Compiled-in choices of {@linkcode turnSinkKeys}. */
export interface TurnSinkKeysSpec extends SaveSinkKeysSpec {
  /** How pairs of components are laid out. */
  readonly rotaryLayout: Exclude<RotaryLayout, "none">;
  /** How many components from a head's first on are rotated, an even number. */
  readonly rotarySize: number;
}

const THREADS = 64;
const PARAMETERS = {
  kvHeads: "u32",
  layer: "u32",
  sequences: "u32",
  firstHead: "u32",
  arenaHeads: "u32",
  sinks: "u32",
} as const;
const grid = ({ arenaHeads, sequences }: Readonly<Record<string, number>>): [number, number, number] => [
  arenaHeads,
  sequences,
  1,
];
const HEAD = `  let head = params.firstHead + group.x;
  let pair = group.y * params.kvHeads + head;
  let extent = extents[params.layer * params.sequences * params.kvHeads + pair];`;

/**
 * Saves the keys of this step's slots, `rows` of them at the most from `start` of each extent on, whose positions are below
 * `sinks`: `sinkKeys[((sequence * kvHeads + head) * sinks + position) * headSize ..]`. For the KV heads
 * [firstHead, firstHead + arenaHeads).
 */
export function saveSinkKeys({ dtype, headSize }: SaveSinkKeysSpec): Kernel {
  return defineKernel({
    name: `saveSinkKeys ${dtype} head ${headSize}`,
    f16: dtype === "f16",
    parameters: { ...PARAMETERS, rows: "u32" },
    bindings: [
      read("keys", `array<${dtype}>`),
      read("slotPositions", "array<u32>"),
      read("extents", "array<Extent>"),
      write("sinkKeys", "array<f32>"),
    ],
    grid,
    body: `
${EXTENT_STRUCT}
@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
${HEAD}
  let end = min(extent.length, extent.start + params.rows);
  for (var slot = extent.start + local; slot < end; slot += ${THREADS}u) {
    let position = slotPositions[extent.positions + slot];
    if (position >= params.sinks) { continue; }
    let source = (extent.base + slot) * ${headSize}u;
    let destination = (pair * params.sinks + position) * ${headSize}u;
    for (var i = 0u; i < ${headSize}u; i++) { sinkKeys[destination + i] = f32(keys[source + i]); }
  }
}
`,
  });
}

/**
 * Rotates the saved keys of positions below `sinks` on by the gap, which is the lowest other position of the extent less
 * `sinks`, and stores them at their slots; 0 where there is no other. Numbers beyond the range of f16 are stored as its
 * largest. `ropeTable` is that of `ropeStore`.
 */
export function turnSinkKeys(spec: TurnSinkKeysSpec): Kernel {
  const { dtype, headSize, rotaryLayout, rotarySize } = spec;
  const pairs = rotarySize / 2;
  const [first, second] = rotaryLayout === "half" ? ["i", `i + ${pairs}u`] : ["2u * i", "2u * i + 1u"];
  const stored = (value: string) => dtype === "f32" ? value : `f16(clamp(${value}, -65504.0, 65504.0))`;
  return defineKernel({
    name: `turnSinkKeys ${dtype} head ${headSize} ${rotaryLayout} ${rotarySize}`,
    f16: dtype === "f16",
    parameters: PARAMETERS,
    bindings: [
      read("sinkKeys", "array<f32>"),
      read("ropeTable", "array<vec2<f32>>"),
      read("slotPositions", "array<u32>"),
      read("extents", "array<Extent>"),
      write("keys", `array<${dtype}>`),
    ],
    grid,
    body: `
${EXTENT_STRUCT}
var<workgroup> oldest: atomic<u32>;

fn turn(pair: u32, position: u32) -> vec2<f32> {
  let low = ropeTable[(position % ${FINE_POSITIONS}u) * ${pairs}u + pair];
  let high = ropeTable[(${FINE_POSITIONS}u + position / ${FINE_POSITIONS}u) * ${pairs}u + pair];
  return vec2<f32>(low.x * high.x - low.y * high.y, low.y * high.x + low.x * high.y);
}

@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
${HEAD}
  if (local == 0u) { atomicStore(&oldest, ${NONE}u); }
  workgroupBarrier();
  var own = ${NONE}u;
  for (var slot = local; slot < extent.length; slot += ${THREADS}u) {
    let position = slotPositions[extent.positions + slot];
    if (position >= params.sinks) { own = min(own, position); }
  }
  atomicMin(&oldest, own);
  workgroupBarrier();
  let next = atomicLoad(&oldest);
  let gap = select(next - params.sinks, 0u, next == ${NONE}u);
  for (var slot = local; slot < extent.length; slot += ${THREADS}u) {
    let position = slotPositions[extent.positions + slot];
    if (position >= params.sinks) { continue; }
    let source = (pair * params.sinks + position) * ${headSize}u;
    let destination = (extent.base + slot) * ${headSize}u;
    for (var i = 0u; i < ${pairs}u; i++) {
      let t = turn(i, gap);
      let a = sinkKeys[source + ${first}];
      let b = sinkKeys[source + ${second}];
      keys[destination + ${first}] = ${stored("a * t.x - b * t.y")};
      keys[destination + ${second}] = ${stored("b * t.x + a * t.y")};
    }
  }
}
`,
  });
}
