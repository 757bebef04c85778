// The kernels that evict in the order of a step, over some hundred steps with made-up logits, against a simulation on
// plain lists: lengths, live positions, the order in which slots are used again.

import { assert, assertEquals } from "@std/assert";
import { createRecorder, type Gpu, type GpuAllocation, readBuffer } from "../../lib/gpu/mod.ts";
import { cacheAppend } from "../../wgsl/cache_append.ts";
import { compressBlock } from "../../wgsl/compress_block.ts";
import { evictSlot, type EvictSlotSpec } from "../../wgsl/evict_slot.ts";
import type { Kernel } from "../../wgsl/kernel.ts";
import { slotScores, type SlotScoresSpec } from "../../wgsl/slot_scores.ts";
import { EXTENT_WORDS, NONE, TURN_WORDS } from "../../wgsl/tables.ts";
import { randomArray, sharedGpu } from "../harness/kernel_case.ts";
import { packParameters } from "../harness/run_kernel.ts";
import {
  append,
  blockSums,
  compress,
  evict,
  type HeadCache,
  meanWeight,
  observe,
  type Turn,
} from "../oracles/eviction.ts";
import { encodeRows, encodeStates } from "./attention_scene.ts";
import { bindingsOf, encodeCaches, offsetsOf } from "./eviction_scene.ts";

const STEPS = 300;
const LAYERS = 2;
const SEQUENCES = 3;
const KV_HEADS = 2;
const GROUP = 2;
const HEADS = KV_HEADS * GROUP;
const SINKS = 3;
const BLOCK = 16;
const DISTANCE_WEIGHT = 1.5;
/** By layer. */
const CAPACITIES = [140, 125];
/** By sequence and layer. */
const KEEPS = [[9, 3], [9, 4], [8, 3]];
/** Tokens of each sequence's prompt; the last one leaves no more room than it takes to begin. */
const PROMPTS = [40, 31, 116];
/** Step at which each sequence is done. */
const ENDS = [Infinity, 170, Infinity];
const STRIDE = 144;

interface Policy {
  readonly name: string;
  readonly heads: "each" | "mean";
  readonly mode?: SlotScoresSpec["mode"];
  readonly limit: EvictSlotSpec["limit"];
  readonly score: EvictSlotSpec["score"];
  readonly window: number;
}

const POLICIES: readonly Policy[] = [
  { name: "sums of each head", heads: "each", mode: "sum", limit: "window", score: "stored", window: 20 },
  { name: "the last row", heads: "mean", mode: "last", limit: "window", score: "stored", window: 1 },
  { name: "positions", heads: "mean", limit: "window", score: "position", window: 30 },
  { name: "blocks", heads: "mean", mode: "block", limit: "frozen", score: "stored", window: 0 },
  { name: "blocks of each head", heads: "each", mode: "block", limit: "frozen", score: "stored", window: 0 },
];

const turns: readonly Turn[] = PROMPTS.map((prompt) => ({ origin: prompt - 1, block: BLOCK }));
const tableOffsetOfWindows = (sequence: number): number => 2 + sequence * (STEPS + 1);
/** Behind all windows: each sequence has the numbers of its layers. */
const tableOffsetOfKeeps = (sequence: number): number => tableOffsetOfWindows(SEQUENCES) + sequence * LAYERS;

/** How many newest tokens are protected by number of the row, and whether the block before them is compressed. */
function windowsOf(prompt: number): { window: number; due: boolean }[] {
  let end = BLOCK;
  return Array.from({ length: STEPS + 1 }, (_, number) => {
    const window = 4 + Math.floor(0.1 * (prompt + number));
    if (number + 1 - window < end) return { window, due: false };
    end += BLOCK;
    return { window: number + 1 - (end - BLOCK), due: true };
  });
}

/** Logits of a step's layer by row and head, and the logarithms that go with them. */
const logitsOf = (step: number, layer: number): Float32Array =>
  randomArray(SEQUENCES * HEADS * STRIDE, step * LAYERS + layer, 2);
const logSumExpsOf = (step: number, layer: number): Float32Array =>
  randomArray(SEQUENCES * HEADS, 9000 + step * LAYERS + layer).map((value) => value + 4);

/** Caches after the prompt, in which deeper layers keep fewer tokens. */
function startCaches(policy: Policy): HeadCache[] {
  const caches: HeadCache[] = [];
  for (let i = 0; i < LAYERS * SEQUENCES * KV_HEADS; i++) {
    const layer = Math.floor(i / KV_HEADS / SEQUENCES);
    const prompt = PROMPTS[Math.floor(i / KV_HEADS) % SEQUENCES];
    const capacity = CAPACITIES[layer];
    if (policy.heads === "mean" && i % KV_HEADS > 0) {
      caches.push(caches[i - 1]);
      continue;
    }
    const all = Array.from({ length: prompt }, (_, position) => position);
    caches.push({
      capacity,
      positions: prompt > 100 ? all : all.filter((position) => position % (4 - layer) !== 1 + i % KV_HEADS),
      scores: Array.from(randomArray(capacity, i), (value) => Math.abs(value)),
      seen: Array.from({ length: capacity }, () => []),
      start: 0,
      freed: [],
      freeFirst: 0,
      frozen: prompt - 1,
    });
  }
  return caches;
}

/** One entry a step, each at an offset that a binding may have. */
function byStep(entries: readonly (Float32Array | Uint32Array)[]): { bytes: Uint8Array; stride: number } {
  const stride = Math.ceil(entries[0].byteLength / 256) * 256;
  const bytes = new Uint8Array(entries.length * stride);
  entries.forEach((entry, i) => bytes.set(new Uint8Array(entry.buffer, 0, entry.byteLength), i * stride));
  return { bytes, stride };
}

const HISTORY = ["extents", "slotPositions", "freed", "slotScores", "slotSums"] as const;
type History = (step: number, name: typeof HISTORY[number]) => ArrayBuffer;

/** Runs all steps in one submit, with a copy of the tables after each. */
async function generate(gpu: Gpu, policy: Policy, delay: number): Promise<History> {
  const { heads, mode, limit, score, window } = policy;
  const steps = Array.from({ length: STEPS }, (_, step) => step);
  const layerSteps = steps.flatMap((step) =>
    Array.from({ length: LAYERS }, (_, layer) => [step, layer] as const)
  );
  const windows = new Uint32Array(tableOffsetOfKeeps(SEQUENCES));
  PROMPTS.forEach((prompt, s) => {
    windows.set(
      windowsOf(prompt).map(({ window, due }) => due ? (window | 0x80000000) >>> 0 : window),
      tableOffsetOfWindows(s),
    );
    windows.set(KEEPS[s], tableOffsetOfKeeps(s));
  });
  const turnTable = new Uint32Array(SEQUENCES * TURN_WORDS);
  turns.forEach(({ origin, block }, s) =>
    turnTable.set([origin, block, tableOffsetOfWindows(s), tableOffsetOfKeeps(s)], s * TURN_WORDS)
  );
  const whole = (array: Float32Array | Uint32Array) => ({
    bytes: new Uint8Array(array.buffer as ArrayBuffer),
    stride: 0,
  });
  const tables = bindingsOf(encodeCaches(startCaches(policy), turns, KV_HEADS));
  const content: Record<string, { bytes: Uint8Array; stride: number }> = {
    ...Object.fromEntries(HISTORY.map((name) => [name, whole(tables[name] as Uint32Array)])),
    turns: whole(turnTable),
    windows: whole(windows),
    spans: whole(Uint32Array.from(PROMPTS.flatMap((_, s) => [s, 1]))),
    rowTable: byStep(
      steps.map((step) =>
        encodeRows(PROMPTS.map((prompt, sequence) => ({ sequence, position: prompt + step, index: 0 })))
      ),
    ),
    states: byStep(steps.map((step) => encodeStates(ENDS.map((end) => step >= end)))),
    logits: byStep(layerSteps.map(([step, layer]) => logitsOf(step, layer))),
    logSumExps: byStep(layerSteps.map(([step, layer]) => logSumExpsOf(step, layer))),
  };

  const held: GpuAllocation[] = [];
  const allocate = async (label: string, size: number, bytes?: Uint8Array): Promise<GPUBuffer> => {
    const usage = GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC |
      (label === "params" ? GPUBufferUsage.UNIFORM : GPUBufferUsage.STORAGE);
    const allocation = await gpu.memory.allocate({ label, owner: "test", size, usage });
    held.push(allocation);
    if (bytes) gpu.device.queue.writeBuffer(allocation.buffer, 0, bytes as Uint8Array<ArrayBuffer>);
    return allocation.buffer;
  };
  try {
    const buffers = new Map<string, GPUBuffer>();
    for (const [name, { bytes }] of Object.entries(content)) {
      buffers.set(name, await allocate(name, bytes.byteLength, bytes));
    }
    /** Makes what records a kernel's dispatch, with a step's entries of the tables that have one a step. */
    const prepare = async (kernel: Kernel, parameters: Record<string, number>) => {
      const uniform = await allocate("params", 64, new Uint8Array(packParameters(kernel, parameters)));
      const { pipeline, layout } = await gpu.pipelines.compile({
        name: kernel.name,
        code: kernel.code,
        access: kernel.bindings.map(({ access }) => access),
      });
      return (step: number, layerStep: number): void => {
        const entries = kernel.bindings.map(({ name }, i) => {
          const { bytes, stride } = content[name];
          const at = (name.startsWith("log") ? layerStep : step) * stride;
          const resource = { buffer: buffers.get(name)!, offset: at, size: stride || bytes.byteLength };
          return { binding: i + 1, resource };
        });
        const bindings = gpu.device.createBindGroup({
          layout,
          entries: [{ binding: 0, resource: { buffer: uniform } }, ...entries],
        });
        recorder.dispatch(kernel.name, pipeline, bindings, kernel.grid(parameters));
      };
    };
    const sizes = { rows: SEQUENCES, heads: HEADS, kvHeads: KV_HEADS, sequences: SEQUENCES, layers: LAYERS };
    const rest = { logitStride: STRIDE, slots: Math.max(...CAPACITIES), sinks: SINKS, window, delay };
    const appendStep = await prepare(
      cacheAppend({ sharedPositions: false, reuse: true }),
      { ...sizes, firstLayer: 0, delay },
    );
    const layers: ((step: number, layerStep: number) => void)[][] = [];
    for (let layer = 0; layer < LAYERS; layer++) {
      const parameters = { ...sizes, ...rest, layer, layers: 1, distanceWeight: DISTANCE_WEIGHT };
      layers.push([
        ...(mode ? [await prepare(slotScores({ mode, heads, groupSize: GROUP }), parameters)] : []),
        ...(mode === "block" ? [await prepare(compressBlock({ heads }), parameters)] : []),
        await prepare(evictSlot({ heads, limit, score }), parameters),
      ]);
    }

    const offsets = new Map<string, number>();
    let size = 0;
    for (const name of HISTORY) offsets.set(name, size), size += content[name].bytes.byteLength;
    const history = await allocate("history", STEPS * size);
    const recorder = createRecorder(gpu);
    for (const step of steps) {
      appendStep(step, 0);
      layers.forEach((kernels, layer) => kernels.forEach((record) => record(step, step * LAYERS + layer)));
      for (const name of HISTORY) {
        const at = step * size + offsets.get(name)!;
        recorder.encoder().copyBufferToBuffer(
          buffers.get(name)!,
          0,
          history,
          at,
          content[name].bytes.byteLength,
        );
      }
    }
    gpu.device.queue.submit([recorder.finish()]);
    const all = await readBuffer(gpu, history, 0, STEPS * size);
    return (step, name) => {
      const at = step * size + offsets.get(name)!;
      return all.slice(at, at + content[name].bytes.byteLength);
    };
  } finally {
    for (const allocation of held) allocation.release();
  }
}

/** Follows all steps on plain lists and compares; returns how often a slot was used again. */
function follow(policy: Policy, delay: number, history: History): { reused: number; compressed: number } {
  const { heads, mode, limit, score } = policy;
  const caches = startCaches(policy);
  const { offsets } = offsetsOf(caches);
  const windows = PROMPTS.map(windowsOf);
  /** When each slot of a cache was freed last, counted in evictions of that cache. */
  const freedAt = new Map<HeadCache, { count: number; by: Map<number, number> }>();
  let reused = 0;
  let compressed = 0;
  for (let step = 0; step < STEPS; step++) {
    const slotScores = new Float32Array(history(step, "slotScores"));
    const slotSums = new Float32Array(history(step, "slotSums"));
    const slotPositions = new Uint32Array(history(step, "slotPositions"));
    const freedTable = new Uint32Array(history(step, "freed"));
    const extents = new Uint32Array(history(step, "extents"));
    caches.forEach((cache, i) => {
      const what = `step ${step}, extent ${i}`;
      const head = i % KV_HEADS;
      const s = Math.floor(i / KV_HEADS) % SEQUENCES;
      const layer = Math.floor(i / KV_HEADS / SEQUENCES);
      const row = PROMPTS[s] + step;
      const offset = offsets[i];
      // Heads that share their slots were followed with the first one.
      const follows = heads === "each" || head === 0;
      if (follows && step >= ENDS[s]) cache.start = cache.positions.length;
      else if (follows) {
        const known = freedAt.get(cache) ?? { count: 0, by: new Map<number, number>() };
        freedAt.set(cache, known);
        append(cache, row, delay);
        assert(cache.start < cache.capacity, `${what}: no slot for the new token`);
        const last = known.by.get(cache.start);
        if (last !== undefined) {
          reused++;
          assert(known.count - last >= delay, `${what}: slot ${cache.start} is used again too early`);
        }
        if (mode) {
          const first = s * HEADS + head * GROUP;
          const count = heads === "mean" ? HEADS : GROUP;
          const all = logitsOf(step, layer);
          const logits = Array.from(
            { length: count },
            (_, h) => all.subarray((first + h) * STRIDE, (first + h + 1) * STRIDE),
          );
          const sums = Array.from(logSumExpsOf(step, layer).subarray(first, first + count));
          observe(cache, mode, row, (slot) => meanWeight(logits, sums, slot));
        }
        const { window, due } = windows[s][step + 1];
        const before = cache.freed.length;
        if (mode === "block" && due) {
          compressed++;
          const distanceWeight = DISTANCE_WEIGHT;
          // A choice between scores that f32 cannot tell apart would be no test.
          compress(cache, { ...turns[s], row, window, keep: KEEPS[s][layer], distanceWeight, margin: 1e-6 });
        }
        cache.positions.forEach((position, slot) => {
          if (position === undefined) return;
          const found = slotScores[offset + slot];
          const want = cache.scores[slot];
          assert(
            Math.abs(found - want) < 1e-5 * Math.max(1, want),
            `${what}, slot ${slot}: ${found}, not ${want}`,
          );
          // Rounded as there, so that both order them alike.
          cache.scores[slot] = found;
        });
        const recent = limit === "window" ? policy.window : window;
        evict(cache, {
          sinks: SINKS,
          limit: limit === "window" ? row + 1 - recent : Math.min(cache.frozen, row + 1 - recent),
          delay,
          byPosition: score === "position",
        });
        for (const slot of cache.freed.slice(before)) known.by.set(slot, ++known.count);
      }
      const { capacity, positions, start, freed, freeFirst, frozen } = cache;
      assertEquals(
        [...extents.subarray(i * EXTENT_WORDS + 1, (i + 1) * EXTENT_WORDS)],
        [capacity, start, positions.length, offset, freeFirst, freed.length, frozen],
        what,
      );
      assertEquals(
        [...slotPositions.subarray(offset, offset + positions.length)],
        positions.map((position) => position ?? NONE),
        what,
      );
      assertEquals(freed.map((_, k) => freedTable[offset + (freeFirst + k) % capacity]), freed, what);
      if (mode !== "block") return;
      positions.forEach((position, slot) => {
        if (position === undefined) return;
        blockSums(cache, slot, turns[s]).forEach((want, k) => {
          const found = slotSums[2 * (offset + slot) + k];
          assert(
            Math.abs(found - want) <= 1e-5 * want,
            `${what}, slot ${slot}: sum ${k} is ${found}, not ${want}`,
          );
        });
      });
    });
  }
  return { reused, compressed };
}

for (const policy of POLICIES) {
  for (const delay of [0, 8]) {
    Deno.test({
      name:
        `cacheAppend(), slotScores(), compressBlock() and evictSlot() play together by ${policy.name}, delay ${delay}`,
      // The device is shared by all tests and outlives them.
      sanitizeOps: false,
      sanitizeResources: false,
      fn: async () => {
        const gpu = await sharedGpu();
        const { reused, compressed } = follow(policy, delay, await generate(gpu, policy, delay));
        assert(reused > 500, `only ${reused} slots were used again`);
        assertEquals(compressed > 50, policy.mode === "block", `${compressed} blocks were compressed`);
      },
    });
  }
}
