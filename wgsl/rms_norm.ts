// RMSNorm (Zhang and Sennrich 2019, arXiv:1910.07467): every row over its root mean square, times a weight.
//
// One workgroup a row; its invocations lie along the width, four steps at a time so that four loads are in flight:
//
//   t0 t1 ... t(T-1) | t0 t1 ... t(T-1) | t0 t1 ... | t0 t1 ... || t0 ...

import { defineKernel, foldGrid, type Kernel, read, unroll, write } from "./kernel.ts";
import { reduceArguments, reduceInputs, workgroupReduce } from "./reduce.ts";

/** Compiled-in choices of {@linkcode rmsNorm}. */
export interface RmsNormSpec {
  /** Whether subgroup operations are used. */
  readonly subgroups: boolean;
  /** Whether width is a multiple of 4. */
  readonly vectorized: boolean;
  /** Whether the normed row is multiplied by a weight. */
  readonly affine: boolean;
  /** Invocations of a workgroup, a power of two from 32 to 256: about width / 4. Changes the order of sums. */
  readonly threads: number;
}

const STEPS = 4;

/**
 * out = x * inverseSqrt(mean(x²) + eps) (* weight), row by row. Bindings `x` [rows, width], `weight` [width] (if
 * `affine`), `out` [rows, width], all f32.
 */
export function rmsNorm(spec: RmsNormSpec): Kernel {
  const { subgroups, vectorized, affine, threads } = spec;
  const type = vectorized ? "vec4<f32>" : "f32";
  const steps = (piece: (i: number) => string): string => unroll(STEPS, piece);
  return defineKernel({
    name: `rmsNorm ${vectorized ? "x4" : "x1"} threads ${threads}${affine ? " affine" : ""}${
      subgroups ? " subgroups" : ""
    }`,
    parameters: { rows: "u32", width: "u32", eps: "f32" },
    bindings: [
      read("x", `array<${type}>`),
      ...(affine ? [read("weight", `array<${type}>`)] : []),
      write("out", `array<${type}>`),
    ],
    grid: ({ rows }) => [...foldGrid(rows), 1],
    body: `
${workgroupReduce({ name: "rowSum", size: threads, operation: "add", subgroups })}
@compute @workgroup_size(${threads})
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32${reduceInputs(subgroups)}
) {
  let row = group.x + group.y * groups.x;
  if (row >= params.rows) { return; }
  let length = params.width${vectorized ? " / 4u" : ""};
  let first = row * length;
  var squares = ${type}();
  for (var i = local; i < length; i += ${STEPS * threads}u) {
    ${
      steps((s) =>
        `if (i + ${s * threads}u < length) { let v${s} = x[first + i + ${
          s * threads
        }u]; squares = fma(v${s}, v${s}, squares); }`
      )
    }
  }
  let sum = rowSum(${vectorized ? "squares.x + squares.y + squares.z + squares.w" : "squares"}, ${
      reduceArguments(subgroups)
    });
  let scale = inverseSqrt(sum / f32(params.width) + params.eps);
  for (var i = local; i < length; i += ${STEPS * threads}u) {
    ${
      steps((s) =>
        `if (i + ${s * threads}u < length) { let at${s} = i + ${
          s * threads
        }u; out[first + at${s}] = x[first + at${s}] * scale${affine ? ` * weight[at${s}]` : ""}; }`
      )
    }
  }
}
`,
  });
}
