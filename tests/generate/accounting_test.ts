// Bytes: what a run reports is what it holds, planRun() says it before, and nothing is left afterwards.

import { assert, assertEquals, assertGreater, assertLess, assertRejects, assertThrows } from "@std/assert";
import { forward, generate, type GenerateOptions, planRun, score, session } from "../../lib/generate/mod.ts";
import { type Gpu, GpuMemoryError, openGpu } from "../../lib/gpu/mod.ts";
import { describeModel, loadModel } from "../../lib/models/mod.ts";
import { deviceTraits } from "../../lib/generate/plans.ts";
import { sharedGpu } from "../harness/kernel_case.ts";
import { NOVEL_LLAMA } from "../harness/models.ts";
import { loadRandomLlama, randomIds, randomLlama } from "../harness/random_llama.ts";

const gpu = await sharedGpu();
const SMALL = randomLlama({ max_position_embeddings: 512 });
const OPTIONS: GenerateOptions = { temperature: 0, ignoreEos: true };

Deno.test("generate(), session(), forward() and score() leave the weights' bytes, and dispose none", async () => {
  assertEquals(gpu.memory.holders(), {});
  const model = await loadRandomLlama(gpu, SMALL);
  const weights = { weights: model.store!.bytes };
  assertEquals(gpu.memory.holders(), weights);
  const calls: (() => Promise<unknown>)[] = [
    () => generate(model, [1, 2, 3], { ...OPTIONS, maxTokens: 9 }).record,
    () => generate(model, [[1], [2, 3], [4]], { ...OPTIONS, maxTokens: 9, logprobs: 3 }).record,
    () => generate(model, [1], { maxTokens: 5, temperature: 1, repetitionPenalty: 2, topK: 5 }).record,
    () => forward(model, [1, 2, 3], { hidden: true }),
    () => score(model, [1, 2, 3]),
    async () => {
      using turns = session(model);
      await turns.generate([1, 2], { ...OPTIONS, maxTokens: 4 }).record;
      using _fork = await turns.fork();
      await turns.generate([3], { ...OPTIONS, maxTokens: 40 }).record;
    },
  ];
  for (const call of calls) {
    await call();
    assertEquals(gpu.memory.holders(), weights);
  }
  model[Symbol.dispose]();
  assertEquals([gpu.memory.holders(), gpu.memory.bytes], [{}, 0]);
});

for (const dtype of ["f32", "f16"] as const) {
  Deno.test({
    name: `generate() in ${dtype} reports the bytes that are held, and planRun() says them before`,
    ignore: dtype === "f16" && !gpu.features.f16,
    async fn(): Promise<void> {
      using model = await loadModel(gpu, NOVEL_LLAMA, { dtype });
      const described = await describeModel(NOVEL_LLAMA, { dtype });
      for (
        const [promptTokens, maxTokens, sequences] of [[1, 1, 1], [7, 20, 1], [33, 10, 1], [5, 6, 3], [
          2,
          3,
          11,
        ]]
      ) {
        const prompts = Array.from({ length: sequences }, (_, i) => randomIds(promptTokens, 4096, i + 1));
        const run = generate(model, prompts, { ...OPTIONS, maxTokens });
        let held: Record<string, number> = {};
        for await (const _ of run) if (!held.cache) held = gpu.memory.holders();
        const [{ bytes }] = await run.record;
        // Pieces may come when all is released.
        if (held.cache) {
          assertEquals([held.weights, held.cache], [bytes.weights, bytes.cache]);
          // Read-back buffers come on top of what is reported.
          assert(held.activations >= bytes.activations && held.activations < bytes.activations + 200_000);
        } else assertEquals(maxTokens, 1);
        assert(bytes.peak >= bytes.weights + bytes.cache + bytes.activations);

        const report = planRun(described, { promptTokens, maxTokens, sequences, device: deviceTraits(gpu) });
        assertEquals(report.bytes.weights, bytes.weights);
        assertEquals(report.bytes.cache, bytes.cache);
        const sum = report.layers.reduce((all, layer) => all + layer.cacheBytes + layer.stateBytes, 0);
        assertEquals(sum, bytes.cache);
        assertEquals(report.layers.map(({ index }) => index), [0, 1, 2, 3, 4, 5]);
        assert(
          report.layers.every(({ kind, cacheTokens, stateBytes }) =>
            kind === "kv" && cacheTokens === promptTokens * sequences && stateBytes === 0
          ),
        );
        // Less the blocks of uniforms, whose alignment is the device's.
        const missing = bytes.activations - report.bytes.activations;
        assert(
          missing >= 0 && missing < 256 * report.kernels.reduce((all, { count }) => all + count, 0) + 512,
        );
        assert(bytes.activations > 0 && report.kernels.length > 0 && report.text.length > 0);
      }
    },
  });
}

Deno.test("planRun() counts the bytes of weights of odd sizes as they are allocated", async () => {
  const odd = randomLlama({ hidden_size: 33, head_dim: 12, intermediate_size: 47, vocab_size: 61 });
  using model = await loadRandomLlama(gpu, odd);
  const { bytes } = await generate(model, [1, 2], { ...OPTIONS, maxTokens: 2 }).record;
  const report = planRun(model, { promptTokens: 2, maxTokens: 2, device: deviceTraits(gpu) });
  assertEquals([report.bytes.weights, report.bytes.cache], [bytes.weights, bytes.cache]);
  assertEquals(gpu.memory.holders(), { weights: bytes.weights });
});

Deno.test("planRun() needs no device, and refuses lengths that a run would refuse", async () => {
  const described = await describeModel(NOVEL_LLAMA, { dtype: "f16" });
  const { bytes } = planRun(described, { promptTokens: 100, maxTokens: 28 });
  // 6 layers of 2 KV heads of 32 keys and values in f16 for 128 tokens; tables beside them are no part of it.
  assertEquals(bytes.cache, 128 * 6 * 2 * 32 * 2 * 2);
  const refused: [Parameters<typeof planRun>[1], string][] = [
    [{ promptTokens: 0, maxTokens: 1 }, "promptTokens must be a whole number of at least 1"],
    [{ promptTokens: 1, maxTokens: 0 }, "maxTokens must be a whole number of at least 1"],
    [{ promptTokens: 1.5, maxTokens: 1 }, "promptTokens must be"],
    [{ promptTokens: 1, maxTokens: 1, sequences: 0 }, "sequences must be"],
    [{ promptTokens: 2048, maxTokens: 1 }, "the model's context 2048"],
    [{ promptTokens: 2000, maxTokens: 49 }, "are over the model's context of 2048: at most 48 are left"],
  ];
  for (const [options, message] of refused) {
    assertThrows(() => planRun(described, options), RangeError, message);
  }
});

/** A device of its own with a memory ceiling. */
async function under(
  memory: number,
  work: (gpu: Gpu) => Promise<void>,
): Promise<void> {
  using gpu = await openGpu({ memory });
  await work(gpu);
}

Deno.test("loadModel() of a model over the memory ceiling allocates nothing", async () => {
  const { bytes } = planRun(await describeModel(NOVEL_LLAMA, { dtype: "f32" }), {
    promptTokens: 1,
    maxTokens: 1,
  });
  await under(bytes.weights - 1, async (gpu) => {
    const error = await assertRejects(() => loadModel(gpu, NOVEL_LLAMA, { dtype: "f32" }), GpuMemoryError);
    assert(error.message.includes(`for the weights of ${NOVEL_LLAMA}`), error.message);
    assertEquals([gpu.memory.bytes, gpu.memory.peak], [0, 0]);
  });
  await under(bytes.weights, async (gpu) => {
    using model = await loadModel(gpu, NOVEL_LLAMA, { dtype: "f32" });
    assertEquals(gpu.memory.bytes, bytes.weights);
    assertEquals(model.store!.bytes, bytes.weights);
  });
});

Deno.test("generate() over the memory ceiling leaves nothing, and a smaller run works after it", async () => {
  using probe = await loadRandomLlama(gpu, SMALL);
  const weights = probe.store!.bytes;
  const small = { ...OPTIONS, maxTokens: 8 };
  const { bytes: { peak } } = await generate(probe, [1, 2], small).record;
  await under(Math.ceil(peak * 1.1), async (gpu) => {
    using model = await loadRandomLlama(gpu, SMALL);
    const expected = (await generate(probe, [1, 2], small).record).ids;
    const turns = session(model);
    const tooMuch: [string, () => Promise<unknown>][] = [
      ["a long run", () => generate(model, [1, 2], { ...OPTIONS, maxTokens: 500 }).record],
      ["a large batch", () => generate(model, new Array(64).fill([1, 2]), small).record],
      ["a session", () => turns.generate([1, 2], { ...OPTIONS, maxTokens: 500 }).record],
      ["forward()", () => forward(model, randomIds(500, 64))],
    ];
    for (const [name, call] of tooMuch) {
      const { message } = await assertRejects(call, GpuMemoryError, "memory ceiling", name);
      assert(message.includes("held now: weights"), message);
      assertEquals(gpu.memory.holders(), { weights }, name);
      assertEquals((await generate(model, [1, 2], small).record).ids, expected, name);
    }
    // A session that could not grow goes on as it was.
    assertEquals((await turns.generate([1, 2], small).record).ids, expected);
    const held = gpu.memory.bytes;
    await assertRejects(() => turns.generate([3], { ...OPTIONS, maxTokens: 450 }).record, GpuMemoryError);
    assertEquals(gpu.memory.bytes, held);
    turns.dispose();
    assertEquals(gpu.memory.holders(), { weights });
    assertLess(gpu.memory.bytes, gpu.memory.ceiling!);
  });
});

Deno.test("generate() leaves nothing when any of its allocations fails", async () => {
  using probe = await loadRandomLlama(gpu, SMALL);
  const weights = probe.store!.bytes;
  const { bytes: { peak } } = await generate(probe, [1, 2], { ...OPTIONS, maxTokens: 8, logprobs: 1 }).record;
  let failed = 0;
  let worked = 0;
  for (let room = weights; room <= peak + 20_000; room += Math.ceil((peak + 20_000 - weights) / 9)) {
    await under(room, async (gpu) => {
      using model = await loadRandomLlama(gpu, SMALL);
      const run = generate(model, [1, 2], { ...OPTIONS, maxTokens: 8, logprobs: 1 });
      await run.record.then(() => worked++, (error) => {
        assert(error instanceof GpuMemoryError, String(error));
        failed++;
      });
      assertEquals(gpu.memory.holders(), { weights });
    });
  }
  assertGreater(failed, 5);
  assertGreater(worked, 0);
});
