// Norms of rows: RMSNorm (Zhang and Sennrich 2019, arXiv:1910.07467) divides by the root mean square, LayerNorm (Ba et al.
// 2016, arXiv:1607.06450) takes the mean off first. A row may be normed in parts of its own (per head).
//
// One workgroup a part of a row; its invocations lie along the width, four steps at a time so that four loads are in
// flight:
//
//   part 0: t0 t1 ... t(T-1) | t0 t1 ... t(T-1) | t0 t1 ... | t0 t1 ... || t0 ...     part 1: t0 t1 ...
//
// LayerNorm reads the row once more for the squares of what the mean leaves: the difference of two large sums would lose
// the digits of a small deviation.

import { defineKernel, foldGrid, type Kernel, read, unroll, write } from "./kernel.ts";
import { reduceArguments, reduceInputs, workgroupReduce } from "./reduce.ts";

/** Compiled-in choices of {@linkcode normRows}. */
export interface NormRowsSpec {
  /** `rms` divides by the root mean square; `layer` takes the mean off before. */
  readonly kind: "rms" | "layer";
  /** Whether eps is added to the root, and not to the mean of squares under it. Default: no. */
  readonly additive?: boolean;
  /** Whether subgroup operations are used. */
  readonly subgroups: boolean;
  /** Whether width (and gainStride) are multiples of 4. */
  readonly vectorized: boolean;
  /** Whether the normed row is multiplied by a weight. */
  readonly affine: boolean;
  /** Whether a bias is added in the end. Default: no. */
  readonly bias?: boolean;
  /** Invocations of a workgroup, a power of two from 32 to 256: about width / 4. Changes the order of sums. */
  readonly threads: number;
}

const STEPS = 4;

/**
 * out = (x - mean) / sqrt(mean((x - mean)²) + eps) (* weight) (+ bias), where mean is 0 for `rms`, for each of `groups`
 * parts of `width` numbers of every row; with `additive`, eps is added to the root. Bindings `x` [rows, groups * width],
 * `weight` (if `affine`), `bias` (if so), `out` as `x`, all f32. Part g takes weight and bias from g * gainStride on: 0
 * shares them among the parts.
 */
export function normRows(spec: NormRowsSpec): Kernel {
  const { kind, additive = false, subgroups, vectorized, affine, bias = false, threads } = spec;
  const type = vectorized ? "vec4<f32>" : "f32";
  const layer = kind === "layer";
  const steps = (piece: (at: string, s: number) => string): string =>
    unroll(STEPS, (s) => {
      const at = `i + ${s * threads}u`;
      return `if (${at} < length) { ${piece(at, s)} }`;
    });
  const loop = (piece: (at: string, s: number) => string): string =>
    `for (var i = local; i < length; i += ${STEPS * threads}u) {
    ${steps(piece)}
  }`;
  const total = (name: string): string =>
    `rowSum(${vectorized ? ["x", "y", "z", "w"].map((c) => `${name}.${c}`).join(" + ") : name}, ${
      reduceArguments(subgroups)
    })`;
  return defineKernel({
    name: `${kind}Norm ${vectorized ? "x4" : "x1"} threads ${threads}${additive ? " additive" : ""}${
      affine ? " affine" : ""
    }${bias ? " bias" : ""}${subgroups ? " subgroups" : ""}`,
    parameters: {
      rows: "u32",
      width: "u32",
      eps: "f32",
      groups: "u32",
      ...(affine || bias ? { gainStride: "u32" as const } : {}),
    },
    bindings: [
      read("x", `array<${type}>`),
      ...(affine ? [read("weight", `array<${type}>`)] : []),
      ...(bias ? [read("bias", `array<${type}>`)] : []),
      write("out", `array<${type}>`),
    ],
    grid: ({ rows, groups }) => [...foldGrid(rows * groups), 1],
    body: `
${workgroupReduce({ name: "rowSum", size: threads, operation: "add", subgroups })}
@compute @workgroup_size(${threads})
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32${reduceInputs(subgroups)}
) {
  let part = group.x + group.y * groups.x;
  if (part >= params.rows * params.groups) { return; }
  let length = params.width${vectorized ? " / 4u" : ""};
  let first = part * length;
  ${affine || bias ? `let gain = part % params.groups * params.gainStride${vectorized ? " / 4u" : ""};` : ""}
  ${
      layer
        ? `var values = ${type}();
  ${loop((at) => `values += x[first + ${at}];`)}
  let mean = ${total("values")} / f32(params.width);`
        : ""
    }
  var squares = ${type}();
  ${
      loop((at, s) =>
        `let v${s} = x[first + ${at}]${layer ? " - mean" : ""}; squares = fma(v${s}, v${s}, squares);`
      )
    }
  let sum = ${total("squares")};
  let scale = ${
      additive
        ? "1.0 / (sqrt(sum / f32(params.width)) + params.eps)"
        : "inverseSqrt(sum / f32(params.width) + params.eps)"
    };
  ${
      loop((at) =>
        `out[first + ${at}] = ${layer ? `(x[first + ${at}] - mean)` : `x[first + ${at}]`} * scale${
          affine ? ` * weight[gain + ${at}]` : ""
        }${bias ? ` + bias[gain + ${at}]` : ""};`
      )
    }
}
`,
  });
}
