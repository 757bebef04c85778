// Runs an op that keeps a matrix for each KV head over several steps, with its oracle beside it.

import { assert, assertEquals } from "@std/assert";
import type { Gpu } from "../../lib/gpu/mod.ts";
import { createWeightStore } from "../../lib/graph/mod.ts";
import { packRows, packSpans, packTiles, type StepRow, tileCount } from "../../lib/generate/tables.ts";
import type { StateHeads } from "../../lib/ops/state_heads.ts";
import { TILE_ROWS } from "../../wgsl/attention_prefill.ts";
import { ROW_WORDS, STATE_WORDS, TILE_WORDS } from "../../wgsl/tables.ts";
import { randomArray } from "../harness/kernel_case.ts";
import { createPlanRunner, type PlanRunner } from "../harness/plan_runner.ts";
import { readState } from "../oracles/delta_rule.ts";
import { MARGIN, planFor, type SceneStep, type StateOp } from "./linear_state_plan.ts";

export type { SceneStep, StateOp } from "./linear_state_plan.ts";

/** Largest error, over the largest number of a row of the output or of a sequence's state. */
const TOLERANCE = 1e-4;

function checkClose(got: Float32Array, want: Float64Array, what: string): void {
  assertEquals(got.length, want.length);
  const largest = want.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  want.forEach((value, i) =>
    assert(
      Math.abs(got[i] - value) <= TOLERANCE * (largest || 1),
      `${what}: element ${i} is ${got[i]}, expected ${value} (largest ${largest})`,
    )
  );
}

/** Runs the steps from empty states on; every row's output and every sequence's state must be the oracle's. */
export async function checkScene(
  gpu: Gpu,
  op: StateOp,
  heads: StateHeads,
  steps: readonly SceneStep[],
): Promise<void> {
  const { kvHeads, keySize, valueSize } = heads;
  const sequences = steps[0].rows.length;
  const words = keySize * valueSize;
  const group = heads.heads / kvHeads;
  const most = Math.max(33, ...steps.map(({ rows }) => rows.reduce((a, b) => a + b, 0)));
  const kinds = [...new Set(steps.map(({ kind }) => kind))];
  const plans = new Map(kinds.map((kind) => [kind, planFor(gpu, op, heads, kind, sequences, most)]));
  const width = MARGIN + (heads.heads + kvHeads) * keySize + kvHeads * valueSize;
  using weights = disposable(createWeightStore(gpu));
  using runner: PlanRunner = await createPlanRunner(gpu, [...plans.values()], {
    weights: weights.value,
    tables: {
      rows: new Uint32Array(most * ROW_WORDS),
      spans: new Uint32Array(sequences * 2),
      tiles: new Uint32Array((Math.ceil(most / TILE_ROWS) + sequences) * TILE_WORDS),
      states: new Uint32Array(sequences * STATE_WORDS),
      inputs: new Float32Array(most * width),
      ...Object.fromEntries(
        Object.entries(op.gates).map(([name, gate]) => [name, new Float32Array(most * kvHeads * gate.width)]),
      ),
      "state.0": new Float32Array(sequences * kvHeads * words),
    },
  });
  const known = Array.from({ length: sequences * kvHeads }, () => new Float64Array(words));
  let before = new Float32Array(sequences * kvHeads * words);
  for (const [number, { kind, rows: counts, done = [] }] of steps.entries()) {
    const rows: StepRow[] = [];
    for (let sequence = sequences - 1; sequence >= 0; sequence--) {
      // Positions have gaps, which change nothing.
      for (let index = 0; index < counts[sequence]; index++) {
        rows.push({ token: 0, sequence, position: 100 * number + 3 * index, index });
      }
    }
    const inputs = randomArray(rows.length * width, number + 1);
    const keysAt = MARGIN + heads.heads * keySize;
    const keyOf = (row: number, head: number) =>
      inputs.subarray(row * width + keysAt + head * keySize, row * width + keysAt + (head + 1) * keySize);
    if (op.unitKeys) {
      rows.forEach((_, row) => {
        for (let head = 0; head < kvHeads; head++) {
          const key = keyOf(row, head);
          const length = Math.hypot(...key);
          key.forEach((value, i) => key[i] = value / length);
        }
      });
    }
    const gates = Object.fromEntries(
      Object.entries(op.gates).map(([name, { width, value }], i) => {
        const random = randomArray(rows.length * kvHeads * width, 1000 * (number + 1) + i);
        return [name, random.map((one, index) => value((one + 1) / 2, index))];
      }),
    );
    const states = new Uint32Array(sequences * STATE_WORDS);
    for (const sequence of done) states[sequence * STATE_WORDS] = 1;
    const tiles = packTiles(rows, TILE_ROWS);
    runner.write("rows", packRows(rows));
    runner.write("spans", packSpans(rows, sequences));
    runner.write("tiles", tiles);
    runner.write("states", states);
    runner.write("inputs", inputs as Float32Array<ArrayBuffer>);
    for (const [name, values] of Object.entries(gates)) {
      runner.write(name, values as Float32Array<ArrayBuffer>);
    }
    const plan = plans.get(kind)!;
    runner.run(plan, { rows: rows.length, tiles: tileCount(tiles), longest: 512, sequences });
    const o = await runner.read(plan, "o", rows.length);
    const state = await runner.read(plan, "state", sequences);

    // The rows of a sequence that is done are computed, but leave its state as it is.
    const after = known.map((one, i) => done.includes(Math.floor(i / kvHeads)) ? one.slice() : one);
    const outputs = heads.heads * valueSize;
    rows.forEach(({ sequence, index }, row) => {
      const want = new Float64Array(outputs);
      for (let head = 0; head < kvHeads; head++) {
        const at = (row * width) + keysAt + kvHeads * keySize + head * valueSize;
        op.step(after[sequence * kvHeads + head], {
          k: keyOf(row, head),
          v: inputs.subarray(at, at + valueSize),
          gates: Object.fromEntries(
            Object.entries(op.gates).map(([name, { width }]) => {
              const first = (row * kvHeads + head) * width;
              return [name, gates[name].subarray(first, first + width)];
            }),
          ),
        });
        for (let query = head * group; query < (head + 1) * group; query++) {
          const first = row * width + MARGIN + query * keySize;
          want.set(
            readState(after[sequence * kvHeads + head], inputs.subarray(first, first + keySize)),
            query * valueSize,
          );
        }
      }
      checkClose(
        o.subarray(row * outputs, (row + 1) * outputs),
        want,
        `step ${number} (${kind}), row ${index} of sequence ${sequence}`,
      );
    });
    for (let sequence = 0; sequence < sequences; sequence++) {
      const part = (all: Float32Array) =>
        all.subarray(sequence * kvHeads * words, (sequence + 1) * kvHeads * words);
      if (done.includes(sequence) || counts[sequence] === 0) {
        assertEquals(part(state), part(before), `step ${number}: state of sequence ${sequence} changed`);
        continue;
      }
      const want = Float64Array.from(
        Array.from({ length: kvHeads }, (_, head) => [...known[sequence * kvHeads + head]]).flat(),
      );
      checkClose(part(state), want, `step ${number} (${kind}), state of sequence ${sequence}`);
    }
    before = state;
  }
}

/** A store that is freed at the end of a block. */
function disposable(
  value: ReturnType<typeof createWeightStore>,
): Disposable & { readonly value: typeof value } {
  return { value, [Symbol.dispose]: () => value.release() };
}
