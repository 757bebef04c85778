// A short soak: the byte accounting after each of some generations, and no heap that grows without end.

import { assertAlmostEquals, assertEquals, assertGreater, assertLess, assertRejects } from "@std/assert";
import vm from "node:vm";
import v8 from "node:v8";
import { openGpu } from "../../lib/gpu/mod.ts";
import { loadModel } from "../../lib/models/mod.ts";
import { NOVEL_LLAMA } from "../harness/models.ts";
import { CEILING, slope, soak } from "./soak.ts";

Deno.test("soak() leaves the weights' bytes after every generation, and little on the heap", async () => {
  v8.setFlagsFromString("--expose-gc");
  const collect: () => void = vm.runInNewContext("gc");
  const heap: number[] = [];
  using gpu = await openGpu({ memory: CEILING });
  using model = await loadModel(gpu, NOVEL_LLAMA);
  await soak(model, {
    generations: 80,
    onGeneration(index) {
      if ((index + 1) % 16 !== 0) return;
      collect();
      heap.push(Deno.memoryUsage().heapUsed);
    },
  });
  assertEquals(heap.length, 5);
  // 32 generations after the first ones, which make the plans and compile the kernels; what a generation must not leave is a buffer's or a text's worth.
  assertLess(heap[4] - heap[2], 32 * 16_384);
  model[Symbol.dispose]();
  assertEquals([gpu.memory.holders(), gpu.memory.bytes], [{}, 0]);
});

Deno.test("soak() fails when something is left over", async () => {
  using gpu = await openGpu({ memory: CEILING });
  using model = await loadModel(gpu, NOVEL_LLAMA);
  const leak = () =>
    void gpu.memory.allocate({ label: "leak", owner: "test", size: 64, usage: GPUBufferUsage.COPY_DST });
  await assertRejects(
    () => soak(model, { generations: 3, onGeneration: leak }),
    Error,
    `Generation 1 (sampled) left ${model.store!.bytes + 64} bytes, the weights have ${model.store!.bytes}`,
  );
});

Deno.test("slope() is that of the least-squares line", () => {
  assertEquals(slope([5, 5, 5, 5]), 0);
  assertAlmostEquals(slope([1, 3, 5, 7, 9]), 2, 1e-12);
  // Of 0, 0, 6: the mean of the products with -1, 0, 1 over that of their squares.
  assertEquals(slope([0, 0, 6]), 3);
  assertGreater(slope([3, 1, 4, 1, 5, 9]), 0);
});
