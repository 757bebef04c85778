// The recurrent form of linear attention, for few rows: the state of a head goes through registers once.
//
//   S_t = decay * S_(t-1) + k_t v_t^T        o_t = S_t^T q_t
//
// A workgroup owns one KV head of one sequence and a block of value columns, a few words (four columns) wide. A thread
// owns eight key rows of one word, in named vectors s0 ... s7:
//
//                 word 0   word 1   word 2   word 3
//   keys 0-7    |   t0   |   t1   |   t2   |   t3   |
//   keys 8-15   |   t4   |   t5   |   t6   |   t7   |     o: sums over the strips, through workgroup memory
//
// The grid counts rows; the workgroup of a sequence's first row goes through all rows of the sequence, one after the
// other, the others have nothing to do. In a decode step each sequence has one row.

import { defineKernel, type Kernel, read, unroll, write } from "./kernel.ts";
import {
  checkLinearSizes,
  columnBlocks,
  COMPONENTS,
  fourArray,
  type LinearDecay,
  loadFour,
  outerProduct,
  POSITION_DECAY,
  TOKEN_DECAY,
} from "./linear_decay.ts";
import { ROW_STRUCT, STATE_STRUCT } from "./tables.ts";

/** Compiled-in choices of {@linkcode linearRecurrent}. */
export interface LinearRecurrentSpec {
  /** Components of a query's and a key's head, a multiple of 4 up to 256. */
  readonly keySize: number;
  /** Components of a value's head, a multiple of 4 up to 256. */
  readonly valueSize: number;
  /** Query heads that share a KV head. */
  readonly groupSize: number;
  /** Decay. */
  readonly decay: LinearDecay;
  /** Whether offsets and strides of q, k and v are multiples of 4. */
  readonly aligned: boolean;
}

/** Key rows of a thread. */
const OWN = 8;

/**
 * Writes `out` [rows, heads * valueSize] and moves `state` [sequences][stateWords * 4] on, see `linearStateSize`; sequences
 * that are done keep theirs. Bindings `q`, `k`, `v` (columns of rows), `rowTable`, `states`, `state`, with a decay `decays`
 * (slopes [kvHeads], or logarithms by row), `out`.
 *
 * @throws {RangeError} when a size does not fit.
 */
export function linearRecurrent(spec: LinearRecurrentSpec): Kernel {
  const { keySize, valueSize, groupSize, decay, aligned } = spec;
  checkLinearSizes({ keySize, valueSize });
  const { blocks, words } = columnBlocks(valueSize);
  const valueWords = valueSize / 4;
  const strips = Math.ceil(keySize / OWN);
  const padded = keySize % OWN !== 0;
  const threads = strips * words;
  // In the last strip of a padded head, only four keys are there.
  const whole = padded ? `strip < ${strips - 1}u` : "";
  const upper = (value: string): string => padded ? `select(vec4<f32>(0.0), ${value}, ${whole})` : value;
  const stateAt = (i: number): string => `stateFirst + ${i * valueWords}u`;
  const inHead = (i: number, statement: string): string =>
    padded && i >= 4 ? `if (${whole}) { ${statement} }` : statement;
  const ragged = words * blocks !== valueWords;
  const store = "out[(row * params.heads + queryHead) * " + valueWords + "u + word] = sum;";
  const name = `linearRecurrent ${keySize}x${valueSize} group ${groupSize} decay ${decay}${
    aligned ? "" : " unaligned"
  }`;

  return defineKernel({
    name,
    parameters: {
      rows: "u32",
      heads: "u32",
      kvHeads: "u32",
      qStride: "u32",
      qOffset: "u32",
      kStride: "u32",
      kOffset: "u32",
      vStride: "u32",
      vOffset: "u32",
      stateWords: "u32",
      ...(decay === "token" ? { decayStride: "u32" as const, decayOffset: "u32" as const } : {}),
    },
    bindings: [
      read("q", fourArray(aligned)),
      read("k", fourArray(aligned)),
      read("v", fourArray(aligned)),
      read("rowTable", "array<Row>"),
      read("states", "array<SequenceState>"),
      write("state", "array<vec4<f32>>"),
      ...(decay === "none" ? [] : [read("decays", "array<f32>")]),
      write("out", "array<vec4<f32>>"),
    ],
    grid: ({ rows, kvHeads }) => [rows, kvHeads, blocks],
    body: `
${ROW_STRUCT}
${STATE_STRUCT}
${["q", "k", "v"].map((name) => loadFour(name, aligned)).join("")}
${decay === "position" ? POSITION_DECAY : decay === "token" ? TOKEN_DECAY : ""}
var<workgroup> partials: array<vec4<f32>, ${threads}>;

@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
  let sequence = rowTable[group.x].sequence;
  if (group.x > 0u && rowTable[max(group.x, 1u) - 1u].sequence == sequence) { return; }
  let head = group.y;
  let strip = local / ${words}u;
  let column = local % ${words}u;
  let owned = group.z * ${words}u + column;
  // Words over the end repeat the last one and are not stored.
  let word = ${ragged ? `min(owned, ${valueWords - 1}u)` : "owned"};
  let stateBase = sequence * params.stateWords;
  let stateFirst = stateBase + (head * ${keySize}u + strip * ${OWN}u) * ${valueWords}u + word;
  ${
      unroll(OWN, (i) =>
        padded && i >= 4
          ? `var s${i} = vec4<f32>(0.0); if (${whole}) { s${i} = state[${stateAt(i)}]; }`
          : `var s${i} = state[${stateAt(i)}];`)
    }
  ${
      decay === "position"
        ? `let slope = decays[head];
  let markAt = stateBase + params.kvHeads * ${keySize * valueWords}u + head * ${blocks}u + group.z;
  let mark = state[markAt];
  // A state that is not in use is 0, whatever it is multiplied by.
  var last = select(0xffffffffu, positionOf(mark), mark.x > 0.0);`
        : ""
    }
  for (var row = group.x; row < params.rows; row++) {
    if (rowTable[row].sequence != sequence) { break; }
    ${
      decay === "position"
        ? `let position = rowTable[row].position;
    let factor = decayOver(slope, select(position - last, 0u, position < last));
    last = position;`
        : decay === "token"
        ? "let factor = exp(logDecayOf(row, head));"
        : ""
    }
    let keys = row * params.kStride + params.kOffset + head * ${keySize}u + strip * ${OWN}u;
    let k0 = kFour(keys);
    let k1 = ${upper("kFour(keys + 4u)")};
    let value = vFour(row * params.vStride + params.vOffset + head * ${valueSize}u + word * 4u);
    ${decay === "none" ? "" : unroll(OWN, (i) => `s${i} *= factor;`)}
    ${outerProduct((i) => `s${i}`, ["k0", "k1"], "value")}
    for (var g = 0u; g < ${groupSize}u; g++) {
      let queryHead = head * ${groupSize}u + g;
      let queries = row * params.qStride + params.qOffset + queryHead * ${keySize}u + strip * ${OWN}u;
      let q0 = qFour(queries);
      let q1 = ${upper("qFour(queries + 4u)")};
      var sum = q0.x * s0;
      ${
      unroll(OWN - 1, (i) =>
        `sum = fma(vec4<f32>(q${i < 3 ? 0 : 1}.${COMPONENTS[(i + 1) % 4]}), s${i + 1}, sum);`)
    }
      ${
      strips === 1 ? ragged ? `if (owned < ${valueWords}u) { ${store} }` : store : `partials[local] = sum;
      workgroupBarrier();
      if (strip == 0u${ragged ? ` && owned < ${valueWords}u` : ""}) {
        ${unroll(strips - 1, (i) => `sum += partials[column + ${(i + 1) * words}u];`)}
        ${store}
      }
      workgroupBarrier();`
    }
    }
  }
  ${
      decay === "position"
        ? "// All have read the mark before one of them writes it.\n  workgroupBarrier();"
        : ""
    }
  if (states[sequence].done != 0u) { return; }
  ${ragged ? `if (owned < ${valueWords}u) {` : ""}
  ${unroll(OWN, (i) => inHead(i, `state[${stateAt(i)}] = s${i};`))}
  ${ragged ? "}" : ""}
  ${decay === "position" ? "if (local == 0u) { state[markAt] = markOf(last); }" : ""}
}
`,
  });
}
