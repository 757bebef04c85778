// Scores of a step's keys by the keys alone, without any query: one invocation a key.
//
//   workgroup (x, head, sequence): | keys 64 x ... 64 x + 63 of the sequence's rows |

import { defineKernel, type Kernel, read, type StorageType, write } from "./kernel.ts";
import { loadVector, vectorArray } from "./load.ts";
import { EXTENT_STRUCT, SELECTION_STRUCT } from "./tables.ts";

/** Compiled-in choices of {@linkcode keyScores}. */
export interface KeyScoresSpec {
  /** Storage type of the keys. */
  readonly dtype: StorageType;
  /** Numbers in a head, a multiple of 4 up to 256. */
  readonly headSize: number;
  /**
   * `norm`: the negative length of the key (Devoto et al., arXiv:2406.11430); `difference`: the negative cosine of its
   * angle to the mean direction of all keys (KeyDiff, arXiv:2504.15364).
   */
  readonly score: "norm" | "difference";
}

const THREADS = 64;

/**
 * `scores[head * stride + first + j]` for the KV heads [firstHead, firstHead + arenaHeads) and every sequence with a
 * `Selection` of `count` rows from `first` on, of which row `first + j` has its key in slot `start + j` of its extent. With
 * `difference`, `means[(sequence * kvHeads + head) * headSize ..]` is the mean direction; the cosine of a key or a mean of
 * length 0 is 0. `columns` is at least the largest number of rows that need scores.
 *
 * @throws {RangeError} when the head size does not fit.
 */
export function keyScores(spec: KeyScoresSpec): Kernel {
  const { dtype, headSize, score } = spec;
  if (!(headSize >= 4 && headSize <= 256 && headSize % 4 === 0)) {
    throw new RangeError(`headSize must be a multiple of 4 from 4 to 256: current value is ${headSize}`);
  }
  const words = headSize / 4;
  const difference = score === "difference";
  return defineKernel({
    name: `keyScores ${score} ${dtype} head ${headSize}`,
    f16: dtype === "f16",
    parameters: {
      columns: "u32",
      kvHeads: "u32",
      layer: "u32",
      sequences: "u32",
      firstHead: "u32",
      arenaHeads: "u32",
      stride: "u32",
    },
    bindings: [
      read("keys", vectorArray(dtype)),
      read("extents", "array<Extent>"),
      read("selections", "array<Selection>"),
      ...(difference ? [read("means", "array<vec4<f32>>")] : []),
      write("scores", "array<f32>"),
    ],
    grid: ({ columns, arenaHeads, sequences }) => [Math.ceil(columns / THREADS), arenaHeads, sequences],
    body: `
${EXTENT_STRUCT}
${SELECTION_STRUCT}
@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let selection = selections[group.z];
  let j = group.x * ${THREADS}u + local;
  if (j >= selection.count) { return; }
  let head = params.firstHead + group.y;
  let extent = extents[(params.layer * params.sequences + group.z) * params.kvHeads + head];
  let first = (extent.base + extent.start + j) * ${words}u;
  var square = 0.0;
  ${
      difference
        ? `let mean = (group.z * params.kvHeads + head) * ${words}u;
  var product = 0.0;
  var meanSquare = 0.0;`
        : ""
    }
  for (var w = 0u; w < ${words}u; w++) {
    let key = ${loadVector(dtype, "keys", "first + w")};
    square += dot(key, key);
    ${
      difference
        ? `product += dot(key, means[mean + w]);
    meanSquare += dot(means[mean + w], means[mean + w]);`
        : ""
    }
  }
  scores[head * params.stride + selection.first + j] = ${
      difference
        ? "select(0.0, -product / (sqrt(square) * sqrt(meanSquare)), square > 0.0 && meanSquare > 0.0)"
        : "-sqrt(square)"
    };
}
`,
  });
}
