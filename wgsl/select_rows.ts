// Which rows of a sequence are kept: the sinks, the best of the others by score, and the window; in ascending order.
//
//   rows of the sequence   | sinks | the best of these by score ........ | window |
//                          0       sinks                        count - window   count
//   map                    | sinks | those in order ... | window |
//
// Rows that are counted stand at the end of the room that there is for the most of them, so that the last row is always
// in the same place; what is before them is marked as absent.
//
// One workgroup a sequence, or a (head, sequence). Its threads first find the border that the best scores reach (see
// selection_border.ts), then walk over tiles of 256 rows, one a thread: each marks its row in bit fields of the workgroup,
// and counts the bits before its own. Three bit fields take turns, so that a tile needs one barrier: while one is read,
// the next may be written already and the one after that is cleared.

import { defineKernel, type Kernel, read, unroll, write } from "./kernel.ts";
import { eachKey, SCORE_KEY, SELECTION_THREADS, selectionBorder } from "./selection_border.ts";
import { ABSENT_INDEX, ROW_STRUCT, SELECTION_STRUCT } from "./tables.ts";

/** Compiled-in choices of {@linkcode selectRows}. */
export interface SelectRowsSpec {
  /** Whether rows of the step are selected, by the scores of head 0, or slots by head, each by its own scores. */
  readonly output: "rows" | "slots";
  /** Whether every (sequence, head) has its own number to keep. */
  readonly counted: boolean;
}

const THREADS = SELECTION_THREADS;
/** Words of a bit field with one bit a thread. */
const WORDS = THREADS / 32;

/**
 * Of the first `context = count - window` rows of a sequence (none when the window is larger), keeps the first `sinks`
 * and of the others those of the highest scores, ties to the lower row, so that `min(keep, context)` are kept, fewer
 * sinks where they are more than that; then all rows of the window. The i-th kept row in ascending order, the sequence's
 * row j, is written as
 *
 * - rows: `map[output + i] = first + j` and `rowsOut[output + i]`, row `first + j` of `rowTable` with index i;
 * - slots: `map[head * stride + first + i] = j`.
 *
 * The score of row j is `scores[head * stride + first + j]`, f32 of any sign; NaN is lowest. `heads` is how many have
 * scores. With `counted`, `keeps[sequence * heads + head]` stands for the selection's `keep`; of rows, which are counted
 * once for all heads with `heads` 1, that is the most there may be: they stand `keep - keeps[sequence]` rows further on,
 * the rows from `output` to there are copies of row `first` of index {@linkcode ABSENT_INDEX}, and `spans[sequence]`
 * becomes the first of the others and their number.
 */
export function selectRows(spec: SelectRowsSpec): Kernel {
  const { output, counted } = spec;
  const rows = output === "rows";
  const body = `
${rows ? ROW_STRUCT : ""}
${SELECTION_STRUCT}
${SCORE_KEY}
${
    selectionBorder({
      parameters: "base: u32, begin: u32, end: u32",
      tallyAll: eachKey("base", "begin", "end", (key) => `tally(${key}, 1u, level, local);`),
    })
  }
// Three pairs of bit fields: rows above the border, rows at it.
var<workgroup> marks: array<atomic<u32>, ${3 * 2 * WORDS}>;

fn keepRow(i: u32, j: u32, selection: Selection, ${rows ? "shift" : "head"}: u32) {
  ${
    rows
      ? `let source = selection.first + j;
  var row = rowTable[source];
  row.index = i;
  map[selection.output + shift + i] = source;
  rowsOut[selection.output + shift + i] = row;`
      : "map[head * params.stride + selection.first + i] = j;"
  }
}

@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let head = group.x;
  let sequence = group.y;
  let selection = selections[sequence];
  let context = selection.count - min(selection.window, selection.count);
  let keep = min(context, ${counted ? "keeps[sequence * params.heads + head]" : "selection.keep"});
${
    rows
      ? `  let shift = ${counted ? "selection.keep - min(keep, selection.keep)" : "0u"};
${
        counted
          ? `  for (var i = local; i < shift; i += ${THREADS}u) {
    var row = rowTable[selection.first];
    row.index = ${ABSENT_INDEX}u;
    map[selection.output + i] = selection.first;
    rowsOut[selection.output + i] = row;
  }
  if (local == 0u) {
    spans[sequence] = vec2<u32>(selection.output + shift, keep + selection.count - context);
  }`
          : ""
      }`
      : ""
  }
  // These are kept whatever their scores.
  let sure = select(min(selection.sinks, keep), context, keep == context);
  for (var j = local; j < sure; j += ${THREADS}u) { keepRow(j, j, selection, ${rows ? "shift" : "head"}); }
  for (var j = context + local; j < selection.count; j += ${THREADS}u) {
    keepRow(keep + (j - context), j, selection, ${rows ? "shift" : "head"});
  }
  if (keep == sure) { return; }

  let base = head * params.stride + selection.first;
  let least = border(keep - sure, local, base, sure, context);
  if (local < ${2 * WORDS}u) { atomicStore(&marks[local], 0u); }
  workgroupBarrier();
  let word = local / 32u;
  let bit = 1u << (local % 32u);
  var field = 0u;
  var aboveBefore = 0u;
  var equalBefore = 0u;
  var key = scoreKey(scores[base + min(sure + local, context - 1u)]);
  for (var tile = sure; tile < context; tile += ${THREADS}u) {
    let j = tile + local;
    let masked = key & least.mask;
    let above = j < context && masked > least.key;
    let equal = j < context && masked == least.key;
    // The next tile's score is on its way meanwhile.
    key = scoreKey(scores[base + min(j + ${THREADS}u, context - 1u)]);
    if (above) { atomicOr(&marks[field + word], bit); }
    if (equal) { atomicOr(&marks[field + ${WORDS}u + word], bit); }
    let next = select(field + ${2 * WORDS}u, 0u, field == ${4 * WORDS}u);
    if (local < ${2 * WORDS}u) { atomicStore(&marks[next + local], 0u); }
    workgroupBarrier();
    var aboveRank = aboveBefore;
    var equalRank = equalBefore;
    ${
    unroll(WORDS, (i) =>
      `let above${i} = atomicLoad(&marks[field + ${i}u]);
    let equal${i} = atomicLoad(&marks[field + ${WORDS + i}u]);
    let before${i} = select(select(0u, bit - 1u, word == ${i}u), NO_KEY, word > ${i}u);
    aboveRank += countOneBits(above${i} & before${i});
    equalRank += countOneBits(equal${i} & before${i});
    aboveBefore += countOneBits(above${i});
    equalBefore += countOneBits(equal${i});`)
  }
    if (above || (equal && equalRank < least.need)) {
      keepRow(sure + aboveRank + min(equalRank, least.need), j, selection, ${rows ? "shift" : "head"});
    }
    field = next;
  }
}
`;
  return defineKernel({
    name: `selectRows ${output}${counted ? " counted" : ""}`,
    parameters: { sequences: "u32", stride: "u32", heads: "u32" },
    bindings: [
      read("scores", "array<f32>"),
      read("selections", "array<Selection>"),
      ...(rows ? [read("rowTable", "array<Row>")] : []),
      write("map", "array<u32>"),
      ...(rows ? [write("rowsOut", "array<Row>")] : []),
      ...(counted ? [read("keeps", "array<u32>")] : []),
      ...(rows && counted ? [write("spans", "array<vec2<u32>>")] : []),
    ],
    grid: ({ sequences, heads }) => [rows ? 1 : heads, sequences, 1],
    body,
  });
}
