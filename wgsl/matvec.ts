// The thin matmul of decode: few rows, bound by reading the weight once.
//
//   out[r, outputOffset + j] = sum over k of x[r, k] * w[firstRow + j, k]
//
// One workgroup owns `columns` consecutive weight rows and up to `rowsPerPass` rows of x; its invocations lie along k:
//
//             k ->   | chunk 0 | chunk 1 | ... | chunk T-1 | chunk T | ...
//   w[first + 0]     |  t0     |  t1     |     |  t(T-1)   |  t0     |        each invocation holds one f32 sum per
//   w[first + 1]     |  t0     |  t1     |     |  t(T-1)   |  t0     |        (weight row, row of x) in registers
//   ...
//
// so neighbouring invocations load neighbouring 16-byte chunks, all loads of a step are independent, and a chunk of x
// is loaded once for all `columns`. The sums are reduced at the end: subgroupAdd, then the subgroups' partials through
// workgroup memory, after one barrier (without subgroups: all through workgroup memory, as many at once as fit).
//
// A fused RMSNorm multiplies x by the norm weight on the way and sums x * x beside the dot products; the scale of a
// row stands before its sums and is applied last, so the weight never waits for it.
//
// Products are summed by explicit fma in an order that depends on k and the workgroup size only: a row's result is the
// same to the bit whatever its index, the number of rows and `rowsPerPass`.

import { type Activation, activationText } from "./activations.ts";
import { defineKernel, foldGrid, type Kernel, read, type StorageType, unroll, write } from "./kernel.ts";
import { reduceInputs } from "./reduce.ts";
import { workgroupThreads } from "./threads.ts";

/** Compiled-in choices of {@linkcode matvec}. */
export interface MatvecSpec {
  /** Storage type of the weight. */
  readonly dtype: StorageType;
  /** Whether subgroup operations are used. */
  readonly subgroups: boolean;
  /** Elements of k a load takes: 1 for any k, 4 when k and inputStride are multiples of 4, 8 (f16 only) when of 8. */
  readonly vector: 1 | 4 | 8;
  /** Rows of x that share one read of the weight. Does not change any result. */
  readonly rowsPerPass: 1 | 2 | 4 | 8;
  /** Whether the RMSNorm of the input rows is fused. */
  readonly norm: boolean;
  /** Whether that norm has a weight. Default: yes. */
  readonly affine?: boolean;
  /** Whether a bias is added to the dot products. Default: no. */
  readonly bias?: boolean;
  /** What follows the dot product. */
  readonly epilogue: "none" | "residual" | "glu";
  /** Activation of the gate, for `glu`. Default: silu. */
  readonly activation?: Activation;
  /** Invocations of a workgroup, a power of two from 32 to 256: about k / vector. Changes the order of sums. */
  readonly threads: number;
  /** Weight rows of a workgroup (pairs of them for glu). Does not change any result. */
  readonly columns: 1 | 2 | 4 | 8;
}

/**
 * Decisions for a weight of `k` columns: about one chunk of k an invocation, so that all loads are in flight at once,
 * and as many weight rows as registers allow. The order of sums does not depend on the number of rows.
 */
export function matvecDecisions(
  spec: Pick<MatvecSpec, "vector" | "rowsPerPass" | "epilogue"> & { readonly k: number },
): Pick<MatvecSpec, "threads" | "columns"> {
  return {
    threads: workgroupThreads(Math.ceil(spec.k / spec.vector)),
    columns: spec.epilogue === "glu" && spec.rowsPerPass === 8 ? 2 : 4,
  };
}

/** Name of accumulator or value `name` for weight row `c` and input row `r`. */
const at = (name: string, c: number, r: number): string => `${name}${c}_${r}`;

/**
 * out = x wᵀ for few rows, with an RMSNorm before it and a bias, a residual or a gated linear unit after it as asked for.
 * Bindings `x` [rows, inputStride] f32, `w` [.., k] stored as `dtype`, `normWeight` [k] f32 (with `norm` and `affine`),
 * `bias` [..] f32 (with `bias`), `residual` (as `out`, with that epilogue), `out` [rows, outputStride] f32.
 *
 * The bias of column j is `bias[firstBias + j]`. A gated linear unit takes the gate from weight row `firstRow + j` and the
 * up projection from `upRow + j`, with the bias `upBias + j`.
 *
 * @throws {TypeError} when 8 elements a load are asked of f32.
 */
export function matvec(spec: MatvecSpec): Kernel {
  const { dtype, subgroups, vector, rowsPerPass: rows, norm, epilogue, threads, columns } = spec;
  const { affine = true, bias = false, activation = "silu" } = spec;
  if (vector === 8 && dtype !== "f16") {
    throw new TypeError("A load of 8 elements needs storage as f16: current value is f32");
  }
  const dots = epilogue === "glu" ? 2 * columns : columns;
  const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);
  // Sums of one row: its dot products, and with norm the sum of squares.
  const names = range(rows).flatMap((r) => [
    ...range(dots).map((c) => at("sum", c, r)),
    ...(norm ? [`squares${r}`] : []),
  ]);
  const perRow = dots + (norm ? 1 : 0);

  const weightType = vector === 1
    ? `array<${dtype}>`
    : vector === 8
    ? "array<vec4<u32>>"
    : `array<vec4<${dtype}>>`;
  const inputType = vector === 1 ? "array<f32>" : "array<vec4<f32>>";
  // Four elements, or one, as the unit of arithmetic; a chunk holds `parts` units.
  const parts = vector === 8 ? 2 : 1;
  const components = vector === 1 ? [""] : [".x", ".y", ".z", ".w"];

  const loadWeight = (c: number): string => {
    const index = `weight${c} + chunk`;
    if (vector === 1) return `let w${c}_0 = f32(w[${index}]);`;
    if (vector === 4) return `let w${c}_0 = vec4<f32>(w[${index}]);`;
    return `let packed${c} = w[${index}];`;
  };
  const unpackWeight = (c: number): string =>
    vector !== 8 ? "" : range(2).map((p) => {
      const [a, b] = p ? ["z", "w"] : ["x", "y"];
      return `let w${c}_${p} = vec4<f32>(unpack2x16float(packed${c}.${a}), unpack2x16float(packed${c}.${b}));`;
    }).join("\n");
  const accumulate = (sum: string, a: string, b: string): string =>
    components.map((part) => `${sum} = fma(${a}${part}, ${b}${part}, ${sum});`).join(" ");
  const inputRow = (r: number): string =>
    unroll(parts, (p) => {
      const index = parts === 1 ? "chunk" : `2u * chunk + ${p}u`;
      return `{
      ${norm && affine ? "var" : "let"} value = x[input${r} + ${index}];
      ${
        norm
          ? `${accumulate(`squares${r}`, "value", "value")}\n      ${
            affine ? `value = value * gain${p};` : ""
          }`
          : ""
      }
      ${unroll(dots, (c) => accumulate(at("sum", c, r), `w${c}_${p}`, "value"))}
      }`;
    });

  const finish = (value: (i: string) => string): string => {
    // Invocation t finishes output (row t / columns, column t % columns).
    const dot = (c: string): string => value(`row * ${perRow}u + ${c}`);
    const product = (c: string): string => norm ? `scale * ${dot(c)}` : dot(c);
    const biased = (c: string, first: string): string =>
      bias ? `${product(c)} + bias[params.${first} + first + column]` : product(c);
    const output = biased("column", "firstBias");
    return `
  if (local < ${rows * columns}u) {
    let row = local / ${columns}u;
    let column = local % ${columns}u;
    if (firstInput + row < params.rows && first + column < params.n) {
      let index = (firstInput + row) * params.outputStride + params.outputOffset + first + column;
      ${norm ? `let scale = inverseSqrt(${dot(`${dots}u`)} / f32(params.k) + params.eps);` : ""}
      ${
      epilogue === "glu"
        ? `out[index] = ${activation}(${output}) * (${biased(`column + ${columns}u`, "upBias")});`
        : epilogue === "residual"
        ? `out[index] = residual[index] + ${bias ? `(${output})` : output};`
        : `out[index] = ${output};`
    }
    }
  }`;
  };

  const count = names.length;
  const reduce = subgroups
    ? `
  ${unroll(count, (i) => `${names[i]} = subgroupAdd(${names[i]});`)}
  if (lane == 0u) {
    let base = local / subgroupSize * ${count}u;
    ${unroll(count, (i) => `partials[base + ${i}u] = ${names[i]};`)}
  }
  workgroupBarrier();
  ${finish((i) => `total(${i}, subgroups)`)}`
    : withoutSubgroups(names, threads) + finish((i) => `totals[${i}]`);

  const body = `
${
    subgroups
      ? `var<workgroup> partials: array<f32, ${Math.max(threads / 4, 1) * count}>;
fn total(index: u32, subgroups: u32) -> f32 {
  var sum = partials[index];
  for (var i = 1u; i < subgroups; i++) { sum += partials[index + i * ${count}u]; }
  return sum;
}`
      : `var<workgroup> partials: array<f32, ${threads * batchOf(count, threads)}>;
var<workgroup> totals: array<f32, ${count}>;`
  }
${epilogue === "glu" ? activationText(activation) : ""}
@compute @workgroup_size(${threads})
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32${reduceInputs(subgroups)}
) {
  let firstInput = group.x * ${rows}u;
  let first = (group.y + group.z * groups.y) * ${columns}u;
  if (first >= params.n) { return; }
  let chunks = params.k / ${vector}u;
  // Rows and columns over the edge repeat the last one and are not stored.
  ${
    unroll(rows, (r) =>
      `let input${r} = min(firstInput + ${r}u, params.rows - 1u) * ${
        vector === 1 ? "params.inputStride" : "(params.inputStride / 4u)"
      };`)
  }
  ${
    unroll(dots, (c) =>
      `let weight${c} = (params.${c < columns ? "firstRow" : "upRow"} + min(first + ${
        c % columns
      }u, params.n - 1u)) * chunks;`)
  }
  ${unroll(count, (i) => `var ${names[i]} = 0.0;`)}
  for (var chunk = local; chunk < chunks; chunk += ${threads}u) {
    ${unroll(dots, loadWeight)}
    ${
    norm && affine
      ? unroll(parts, (p) => `let gain${p} = normWeight[${parts === 1 ? "chunk" : `2u * chunk + ${p}u`}];`)
      : ""
  }
    ${unroll(dots, unpackWeight)}
    ${unroll(rows, inputRow)}
  }
  ${subgroups ? `let subgroups = (${threads}u + subgroupSize - 1u) / subgroupSize;` : ""}
${reduce}
}
`;
  return defineKernel({
    name: `matvec ${dtype} x${vector} rows ${rows} columns ${columns} threads ${threads}${
      norm ? affine ? " norm" : " plain norm" : ""
    }${bias ? " bias" : ""} ${epilogue === "glu" ? `${activation} glu` : epilogue}${
      subgroups ? " subgroups" : ""
    }`,
    f16: dtype === "f16" && vector !== 8,
    parameters: {
      rows: "u32",
      k: "u32",
      n: "u32",
      inputStride: "u32",
      outputStride: "u32",
      outputOffset: "u32",
      firstRow: "u32",
      ...(epilogue === "glu" ? { upRow: "u32" as const } : {}),
      ...(bias ? { firstBias: "u32" as const } : {}),
      ...(bias && epilogue === "glu" ? { upBias: "u32" as const } : {}),
      ...(norm ? { eps: "f32" as const } : {}),
    },
    bindings: [
      read("x", inputType),
      read("w", weightType),
      ...(norm && affine ? [read("normWeight", inputType)] : []),
      ...(bias ? [read("bias", "array<f32>")] : []),
      ...(epilogue === "residual" ? [read("residual", "array<f32>")] : []),
      write("out", "array<f32>"),
    ],
    grid: ({ rows: count, n }) => {
      const [y, z] = foldGrid(Math.ceil(n / columns));
      return [Math.ceil(count / rows), y, z];
    },
    body,
  });
}

/** Sums that go through workgroup memory at once, so that it stays within 16 KiB. */
function batchOf(count: number, threads: number): number {
  return Math.min(count, 4096 / threads);
}

/** Leaves the workgroup's sums of all `names` in `totals`. */
function withoutSubgroups(names: readonly string[], threads: number): string {
  const batch = batchOf(names.length, threads);
  const segments = threads / 8;
  let text = "";
  for (let first = 0; first < names.length; first += batch) {
    const part = names.slice(first, first + batch);
    // Sum i's partials lie at [i * threads, (i + 1) * threads); first 8 partial sums of it, then their sum.
    text += `
  ${first ? "workgroupBarrier();" : ""}
  ${unroll(part.length, (i) => `partials[${i * threads}u + local] = ${part[i]};`)}
  workgroupBarrier();
  for (var task = local; task < ${part.length * 8}u; task += ${threads}u) {
    let base = task / 8u * ${threads}u + task % 8u;
    var sum = partials[base];
    for (var i = 1u; i < ${segments}u; i++) { sum += partials[base + i * 8u]; }
    partials[base] = sum;
  }
  workgroupBarrier();
  for (var task = local; task < ${part.length}u; task += ${threads}u) {
    let base = task * ${threads}u;
    var sum = partials[base];
    ${unroll(7, (i) => `sum += partials[base + ${i + 1}u];`)}
    totals[${first}u + task] = sum;
  }
  workgroupBarrier();`;
  }
  return text;
}
