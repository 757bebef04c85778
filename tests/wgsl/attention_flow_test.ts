// The attention kernels in the order of a step, over several steps, against attention from its definition.

import { assert, assertEquals } from "@std/assert";
import { attentionDecode } from "../../wgsl/attention_decode.ts";
import { attentionPrefill } from "../../wgsl/attention_prefill.ts";
import { attentionReduce } from "../../wgsl/attention_reduce.ts";
import { cacheAppend } from "../../wgsl/cache_append.ts";
import type { Kernel } from "../../wgsl/kernel.ts";
import { ropeStore } from "../../wgsl/rope_store.ts";
import { EXTENT_WORDS } from "../../wgsl/tables.ts";
import { randomArray, sharedGpu } from "../harness/kernel_case.ts";
import { type HostArray, runKernel } from "../harness/run_kernel.ts";
import { attention, ropeTable, rotaryFrequencies, rotate, type Slot } from "../oracles/attention.ts";
import {
  encodeExtents,
  encodeRows,
  encodeStates,
  encodeTiles,
  poisoned,
  type Row,
} from "./attention_scene.ts";

const headSize = 16;
const kvHeads = 2;
const groupSize = 2;
const heads = kvHeads * groupSize;
const layers = 2;
const sequences = 3;
const capacity = 90;
const stride = (heads + 2 * kvHeads) * headSize;
const split = 32;
const scale = 0.3;

/** Rows of each sequence, step by step, and which of them are done by then. */
const STEPS: readonly { rows: readonly number[]; done: readonly number[] }[] = [
  { rows: [5, 0, 70], done: [] },
  { rows: [1, 3, 1], done: [] },
  { rows: [1, 1, 1], done: [0] },
  { rows: [1, 1, 1], done: [0, 2] },
];

function check(got: Float32Array, want: Float64Array, what: string): void {
  assertEquals(got.length, want.length);
  want.forEach((value, i) =>
    assert(Math.abs(got[i] - value) <= 1e-5, `${what}: element ${i} is ${got[i]}, expected ${value}`)
  );
}

for (const sharedPositions of [true, false]) {
  Deno.test({
    name: `cacheAppend(), ropeStore() and the attention kernels play together over steps (${
      sharedPositions ? "shared" : "own"
    } positions)`,
    // The device is shared by all tests and outlives them.
    sanitizeOps: false,
    sanitizeResources: false,
    fn: async () => {
      const gpu = await sharedGpu();
      /** Runs a kernel and puts what it wrote back among the data. */
      const run = async (
        kernel: Kernel,
        parameters: Record<string, number>,
        data: Record<string, HostArray>,
      ): Promise<void> => {
        const { outputs } = await runKernel(gpu, kernel, parameters, data);
        for (const [name, bytes] of Object.entries(outputs)) {
          data[name] = data[name] instanceof Uint32Array ? new Uint32Array(bytes) : new Float32Array(bytes);
        }
      };
      const subgroups = gpu.features.subgroups;
      const dtype = "f32";
      const frequencies = rotaryFrequencies(headSize);
      const prefill = attentionPrefill({ dtype, headSize, subgroups, ordered: true });
      const decode = attentionDecode({ dtype, headSize, groupSize, split });
      const reduce = attentionReduce({ headSize });

      const extentCount = layers * sequences * kvHeads;
      const tables: Record<string, HostArray> = {
        extents: encodeExtents(Array.from({ length: extentCount }, (_, i) => ({
          // Each layer has an arena of its own.
          base: 1 + (i % (sequences * kvHeads)) * (capacity + 1),
          capacity,
          start: 0,
          length: 0,
          positions: 2 + capacity * (sharedPositions ? Math.floor(i / kvHeads) % sequences : i),
        }))),
        slotPositions: new Uint32Array(2 + capacity * extentCount).fill(0xfffffff0),
        ropeTable: ropeTable(frequencies, 512),
      };
      const arenaLength = (1 + sequences * kvHeads * (capacity + 1)) * headSize;
      const arenas = Array.from({ length: layers }, () => ({
        keys: new Float32Array(arenaLength).fill(NaN) as HostArray,
        values: new Float32Array(arenaLength).fill(NaN) as HostArray,
      }));
      const known: Slot[][] = Array.from({ length: extentCount }, () => []);
      // The second sequence does not begin at 0, the third lies about the end of the fine angles.
      const next = [0, 7, 250];

      for (const [step, { rows: counts, done }] of STEPS.entries()) {
        const rows: Row[] = [];
        const spans = new Uint32Array(2 * sequences);
        for (const sequence of [1, 2, 0]) {
          spans.set([rows.length, counts[sequence]], 2 * sequence);
          for (let index = 0; index < counts[sequence]; index++) {
            rows.push({ sequence, position: next[sequence]++, index });
          }
        }
        const state = encodeStates([0, 1, 2].map((s) => done.includes(s)));
        const data: Record<string, HostArray> = {
          ...tables,
          states: state,
          spans,
          rowTable: encodeRows(rows),
        };
        await run(
          cacheAppend({ sharedPositions, reuse: false }),
          { layers, sequences, kvHeads, firstLayer: 0, delay: 0 },
          data,
        );
        tables.extents = data.extents;
        tables.slotPositions = data.slotPositions;

        for (let layer = 0; layer < layers; layer++) {
          const qkv = randomArray(rows.length * stride, 100 * step + layer, 2);
          const column = (r: number, at: number): Float64Array =>
            Float64Array.from(qkv.subarray(r * stride + at * headSize, r * stride + (at + 1) * headSize));
          const head = { heads, kvHeads, layer, sequences, firstHead: 0, arenaHeads: kvHeads };
          Object.assign(data, { qkv, ...arenas[layer] });
          await run(
            ropeStore({ dtype, headSize, rotaryLayout: "half" }),
            {
              ...head,
              rows: rows.length,
              stride,
              qOffset: 0,
              kOffset: heads * headSize,
              vOffset: (heads + kvHeads) * headSize,
              rotateQ: 1,
            },
            data,
          );
          arenas[layer] = { keys: data.keys, values: data.values };

          const want = new Float64Array(rows.length * heads * headSize);
          rows.forEach(({ sequence, position }, r) => {
            for (let kvHead = 0; kvHead < kvHeads; kvHead++) {
              const slots = known[(layer * sequences + sequence) * kvHeads + kvHead];
              if (!done.includes(sequence)) {
                slots.push({
                  position,
                  key: rotate(column(r, heads + kvHead), position, "half", frequencies),
                  value: column(r, heads + kvHeads + kvHead),
                });
              }
              for (let h = kvHead * groupSize; h < (kvHead + 1) * groupSize; h++) {
                const query = rotate(column(r, h), position, "half", frequencies);
                want.set(attention(query, position, slots, scale), (r * heads + h) * headSize);
              }
            }
          });

          const queries = { ...head, qStride: stride, qOffset: 0, scale, outStride: heads * headSize };
          const tiles = encodeTiles(rows, 64);
          Object.assign(data, { q: data.qkv, tiles, out: poisoned(want.length) });
          await run(prefill, { ...queries, tiles: tiles.length / 4 }, data);
          check(data.out as Float32Array, want, `step ${step}, layer ${layer}, attentionPrefill`);

          const splits = Math.ceil(capacity / split);
          Object.assign(data, {
            partials: poisoned(rows.length * heads * splits * headSize),
            statistics: poisoned(rows.length * heads * splits * 2),
            out: poisoned(want.length),
          });
          await run(decode, { ...queries, rows: rows.length, splits }, data);
          await run(reduce, { ...queries, rows: rows.length, splits, split }, data);
          check(data.out as Float32Array, want, `step ${step}, layer ${layer}, attentionDecode`);
        }
      }
      const lengths = Array.from({ length: extentCount }, (_, i) => tables.extents[i * EXTENT_WORDS + 3]);
      assertEquals(lengths, known.map((slots) => slots.length));
    },
  });
}
