// How much attention a decode step's rows paid to each slot of the cache: what policies choose by that evict while
// tokens are generated.
//
//   slots ->       0 1 2 ...       255 | 256 ...
//   row, KV head   t0 t1 t2 ... t255   | ...         a workgroup owns 256 slots of one row and one KV head (or of all of
//                                                    them together); a thread has one slot and adds its heads in order
//
// No two rows are of one sequence, so every entry has one writer.

import { defineKernel, type Kernel, read, unroll, write } from "./kernel.ts";
import { EXTENT_STRUCT, ROW_STRUCT, STATE_STRUCT, TURN_STRUCT } from "./tables.ts";

/** Compiled-in choices of {@linkcode slotScores}. */
export interface SlotScoresSpec {
  /**
   * What becomes of a slot's attention: `sum` adds it up from the row on that the slot was written for (H2O,
   * arXiv:2306.14048); `last` keeps that of the newest row (TOVA, arXiv:2401.06104); `block` sums what compressBlock
   * needs over the rows of later blocks (PyramidInfer, arXiv:2405.12532).
   */
  readonly mode: "sum" | "last" | "block";
  /** Whether each KV head has slots and scores of its own, or all share them and the mean over all heads is taken. */
  readonly heads: "each" | "mean";
  /** Query heads that share a KV head. */
  readonly groupSize: number;
}

/** Score of a token that no block was scored with: it goes last. */
export const UNSCORED = 3.0e38;

const THREADS = 256;

/**
 * For each row, one a sequence, and each slot that it sees: `p`, the mean over the KV head's query heads (over all query
 * heads with `heads` mean) of `exp(logit - logSumExp)`, goes to entry `positions + slot` of its extent (the one of head 0
 * with `heads` mean).
 *
 * - `sum`: `slotScores += p`, but `= p` for the row's own slot, whose old content is forgotten;
 * - `last`: `slotScores = p`;
 * - `block`: the row's own slot gets `slotSums = (0, 0)` and `slotScores =` {@linkcode UNSCORED}, until compressBlock
 *   scores it. With the {@linkcode TURN_STRUCT Turn} of the sequence and numbers counted from its origin, a slot of an
 *   earlier block than the row's gets `slotSums += (p, number of the row * p)`; slots of positions below the origin are
 *   left alone, and that of the origin itself begins with the sums 0 at row number 1.
 *
 * Nothing changes for slots without a visible token and for sequences that are done. `slots` is the grid's: at least the
 * longest length.
 */
export function slotScores(spec: SlotScoresSpec): Kernel {
  const { mode, heads, groupSize } = spec;
  const each = heads === "each";
  const block = mode === "block";
  const body = `
${ROW_STRUCT}
${EXTENT_STRUCT}
${STATE_STRUCT}
${block ? TURN_STRUCT : ""}

fn groupSum(row: u32, kvHead: u32, slot: u32) -> f32 {
  let first = row * params.heads + kvHead * ${groupSize}u;
  ${
    unroll(
      groupSize,
      (i) =>
        `let p${i} = exp(logits[(first + ${i}u) * params.logitStride + slot] - logSumExps[first + ${i}u]);`,
    )
  }
  return ${Array.from({ length: groupSize }, (_, i) => `p${i}`).join(" + ")};
}

@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let row = rowTable[group.z];
  if (states[row.sequence].done != 0u) { return; }
  let extent = extents[(params.layer * params.sequences + row.sequence) * params.kvHeads + group.y];
  let slot = group.x * ${THREADS}u + local;
  if (slot >= extent.length) { return; }
  let at = extent.positions + slot;
  let own = slot == extent.start + row.index;
  let position = slotPositions[at];
  ${
    block
      ? `if (own) {
    slotSums[at] = vec2<f32>(0.0);
    slotScores[at] = ${UNSCORED};
    return;
  }
  let turn = turns[row.sequence];
  if (position > row.position || position < turn.origin) { return; }
  let number = row.position - turn.origin;
  // The token at the origin was stored by a prefill, which knows nothing of sums.
  if (position == turn.origin && number == 1u) { slotSums[at] = vec2<f32>(0.0); }
  if ((position - turn.origin) / turn.block >= number / turn.block) { return; }`
      : "if (position > row.position) { return; }"
  }
  ${
    each ? `let p = groupSum(group.z, group.y, slot) / ${groupSize}.0;` : `var sum = 0.0;
  for (var kvHead = 0u; kvHead < params.kvHeads; kvHead++) { sum += groupSum(group.z, kvHead, slot); }
  let p = sum / f32(params.heads);`
  }
  ${
    {
      sum: "slotScores[at] = select(slotScores[at], 0.0, own) + p;",
      last: "slotScores[at] = p;",
      block: "slotSums[at] += vec2<f32>(p, f32(number) * p);",
    }[mode]
  }
}
`;
  return defineKernel({
    name: `slotScores ${mode} ${heads} group ${groupSize}`,
    parameters: {
      rows: "u32",
      heads: "u32",
      kvHeads: "u32",
      layer: "u32",
      sequences: "u32",
      logitStride: "u32",
      slots: "u32",
    },
    bindings: [
      read("logits", "array<f32>"),
      read("logSumExps", "array<f32>"),
      read("rowTable", "array<Row>"),
      read("extents", "array<Extent>"),
      read("slotPositions", "array<u32>"),
      read("states", "array<SequenceState>"),
      ...(block ? [read("turns", "array<Turn>")] : []),
      ...(block ? [write("slotSums", "array<vec2<f32>>")] : []),
      write("slotScores", "array<f32>"),
    ],
    grid: ({ rows, kvHeads, slots }) => [Math.max(1, Math.ceil(slots / THREADS)), each ? kvHeads : 1, rows],
    body,
  });
}
