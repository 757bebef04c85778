// Feature maps of linear attention, head by head: what stands in for the exponential of softmax attention.
//
//   x --map--> features --reflection--> --rotation by position--> --l2 norm, scale--> out
//
// One workgroup has one head of one row, one component an invocation (t0 t1 ... t(T-1), the last ones may be idle). The
// mapped features stand in workgroup memory, `mapped` of them (hedgehog: twice the head size), because rotations take
// them in pairs; then each invocation makes every T-th of the outputs:
//
//   interleaved   pairs (2i, 2i + 1)            half   pairs (i, i + mapped / 2)
//   concat        [ x cos | x sin ], an angle for each component, twice as many outputs

import { type FeatureMap, featureMapText, mappedSize } from "./feature_maps.ts";
import { defineKernel, foldGrid, type Kernel, read, unroll, write } from "./kernel.ts";
import { reduceArguments, reduceInputs, workgroupReduce } from "./reduce.ts";
import { ROW_STRUCT } from "./tables.ts";
import { workgroupThreads } from "./threads.ts";
import { SINE_COSINE, TURNS } from "./turns.ts";

export { FEATURE_MAPS, type FeatureMap, mappedSize } from "./feature_maps.ts";

/** Which features are rotated together, and whether rotating doubles their number. */
export type RotationLayout = "interleaved" | "half" | "concat";

/** Compiled-in choices of {@linkcode featureMap}. */
export interface FeatureMapSpec {
  /** Components of a head, at most 256. */
  readonly headSize: number;
  /** The map. */
  readonly map: FeatureMap;
  /** Whether x - 2 (x . v) v is applied to the features: a binding `reflection` with the unit vector v. */
  readonly householder: boolean;
  /** Rotation by position: a binding `turns`, see wgsl/turns.ts. */
  readonly rotation?: RotationLayout;
  /** Whether every head has angles of its own. */
  readonly perHead?: boolean;
  /** Whether features are divided by sqrt(their sum of squares + 1e-6). */
  readonly normalize: boolean;
  /** Whether rows of the token `zeroToken` become 0. */
  readonly zeroes: boolean;
  /** Whether subgroup operations are used. */
  readonly subgroups: boolean;
}

/** Largest head. */
export const MAX_FEATURE_HEAD = 256;

/** Features of a head in the end. */
export function featureSize(headSize: number, map: FeatureMap, rotation?: RotationLayout): number {
  return mappedSize(headSize, map) * (rotation === "concat" ? 2 : 1);
}

/**
 * out[row, head, ...] = scale * features of x[row, offset + head * headSize ...]. Bindings `x` (columns of rows `stride`
 * apart), `rowTable`, with `householder` `reflection` [mapped], with a rotation `turns` [(heads,) angles], and `out`
 * [rows, heads, features], all f32. Angles are one a pair (one a component for `concat`); positions are counted modulo
 * `restart`, if that is not 0.
 *
 * @throws {RangeError} when the head size does not fit.
 */
export function featureMap(spec: FeatureMapSpec): Kernel {
  const { headSize, map, householder, rotation, perHead = false, normalize, zeroes, subgroups } = spec;
  if (!(Number.isInteger(headSize) && headSize >= 1 && headSize <= MAX_FEATURE_HEAD)) {
    throw new RangeError(
      `Feature maps take heads of 1 to ${MAX_FEATURE_HEAD} components: current value is ${headSize}`,
    );
  }
  const mapped = mappedSize(headSize, map);
  const doubled = map === "hedgehog";
  if (rotation && rotation !== "concat" && mapped % 2 !== 0) {
    throw new RangeError(`Rotations take an even number of features: current value is ${mapped}`);
  }
  const outputs = featureSize(headSize, map, rotation);
  const threads = workgroupThreads(headSize);
  const pairs = mapped / 2;
  const angles = rotation === "concat" ? mapped : pairs;
  const reduce = reduceArguments(subgroups);
  const reduction = (name: string, operation: "add" | "max"): string =>
    workgroupReduce({ name, size: threads, operation, subgroups, type: "vec2<f32>" });
  const text = featureMapText(map, reduce);
  const both = (piece: (name: string, index: string) => string): string =>
    `${piece("first", "local")}${doubled ? ` ${piece("second", `local + ${headSize}u`)}` : ""}`;

  const reflect = `let component = select(0u, local, inHead);
  let v0 = reflection[component];${doubled ? `\n  let v1 = reflection[component + ${headSize}u];` : ""}
  let twice = 2.0 * total(vec2<f32>(first * v0${doubled ? " + second * v1" : ""}, 0.0), ${reduce}).x;
  let reflected0 = first - twice * v0;${doubled ? "\n  let reflected1 = second - twice * v1;" : ""}`;
  const [a, b] = householder ? ["reflected0", "reflected1"] : ["first", "second"];
  const turnOf = (index: string): string =>
    `turn(turns[${perHead ? `head * ${angles}u + ` : ""}${index}], position)`;
  const output = rotation === "concat"
    ? `let t = ${turnOf(`i % ${mapped}u`)};
    value = features[i % ${mapped}u] * select(t.y, t.x, i < ${mapped}u);`
    : rotation === "interleaved"
    ? `let t = ${turnOf("i / 2u")};
    value = features[i] * t.x + select(-t.y, t.y, i % 2u == 1u) * features[i ^ 1u];`
    : rotation === "half"
    ? `let low = i < ${pairs}u;
    let t = ${turnOf(`select(i - ${pairs}u, i, low)`)};
    value = features[i] * t.x + select(t.y, -t.y, low) * features[select(i - ${pairs}u, i + ${pairs}u, low)];`
    : "value = features[i];";

  return defineKernel({
    name: `featureMap ${map} head ${headSize}${householder ? " householder" : ""}${
      rotation ? ` ${rotation}${perHead ? " by head" : ""}` : ""
    }${normalize ? " l2" : ""}${zeroes ? " zeroes" : ""}${subgroups ? " subgroups" : ""}`,
    parameters: {
      rows: "u32",
      heads: "u32",
      stride: "u32",
      offset: "u32",
      restart: "u32",
      zeroToken: "u32",
      scale: "f32",
    },
    bindings: [
      read("x", "array<f32>"),
      read("rowTable", "array<Row>"),
      ...(householder ? [read("reflection", "array<f32>")] : []),
      ...(rotation ? [read("turns", "array<vec2<u32>>")] : []),
      write("out", "array<f32>"),
    ],
    grid: ({ rows, heads }) => [...foldGrid(rows * heads), 1],
    body: `
${ROW_STRUCT}
${rotation ? TURNS : map === "sine" ? SINE_COSINE : ""}
${text.functions}
${text.reductions.includes("bound") ? reduction("bound", "max") : ""}
${text.reductions.includes("total") || householder || normalize ? reduction("total", "add") : ""}
var<workgroup> features: array<f32, ${mapped}>;

@compute @workgroup_size(${threads})
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32${reduceInputs(subgroups)}
) {
  let index = group.x + group.y * groups.x;
  if (index >= params.rows * params.heads) { return; }
  let rowIndex = index / params.heads;
  let head = index % params.heads;
  let row = rowTable[rowIndex];
  let inHead = local < ${headSize}u;
  let own = x[rowIndex * params.stride + params.offset + head * ${headSize}u + select(0u, local, inHead)];
  ${text.statements}
  ${householder ? reflect : ""}
  if (inHead) { ${both((name, at) => `features[${at}] = ${name === "first" ? a : b};`)} }
  var factor = params.scale;
  ${
      // A reflection and a rotation leave the length as it is.
      normalize
        ? `factor *= inverseSqrt(total(vec2<f32>(first * first${
          doubled ? " + second * second" : ""
        }, 0.0), ${reduce}).x + 1e-6);`
        : ""}
  ${zeroes ? "if (row.token == params.zeroToken) { factor = 0.0; }" : ""}
  ${
      rotation
        ? "let position = select(row.position, row.position % max(params.restart, 1u), params.restart > 0u);"
        : ""
    }
  workgroupBarrier();
  ${
      unroll(Math.ceil(outputs / threads), (n) =>
        `if (local + ${n * threads}u < ${outputs}u) {
    let i = local + ${n * threads}u;
    var value: f32;
    ${output}
    out[index * ${outputs}u + i] = ${
          zeroes ? "select(value * factor, 0.0, factor == 0.0)" : "value * factor"
        };
  }`)
    }
}
`,
  });
}
