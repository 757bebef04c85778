import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import { planFor, type RunSizes } from "../../lib/generate/plans.ts";
import { RING } from "../../lib/generate/decode_loop.ts";
import { describeModel } from "../../lib/models/mod.ts";
import { generate } from "../../lib/generate/mod.ts";
import { NOVEL_LLAMA, novelLlama } from "../harness/models.ts";

const DEVICE = {
  features: { f16: true, subgroups: true, subgroupMinSize: 32, subgroupMaxSize: 32, timestamps: true },
  bindingBytes: 2 ** 27,
  workgroupBytes: 2 ** 15,
};

const PURPOSE = { type: "sample", sampling: { edits: false, ring: RING } } as const;

function sizesOf(...capacities: number[]): RunSizes {
  const turns = capacities.map((tokens) => ({ tokens, maxTokens: 0, position: 0 }));
  return {
    capacities,
    turns,
    rewindable: false,
    prefillRows: 128,
    logitRows: capacities.length,
    batchInvariant: false,
  };
}

Deno.test("planFor() needs no new plan for another length, and one for another bucket, phase or batch", async () => {
  const model = await describeModel(NOVEL_LLAMA);
  for (const phase of ["prefill", "decode"] as const) {
    const plan = planFor(model, DEVICE, phase, PURPOSE, sizesOf(70));
    for (const length of [65, 100, 128]) {
      assertStrictEquals(planFor(model, DEVICE, phase, PURPOSE, sizesOf(length)), plan, `${phase} ${length}`);
    }
    assert(planFor(model, DEVICE, phase, PURPOSE, sizesOf(129)) !== plan);
    assert(planFor(model, DEVICE, phase, PURPOSE, sizesOf(70, 70)) !== plan);
  }
  const [prefill, decode] = (["prefill", "decode"] as const).map((phase) =>
    planFor(model, DEVICE, phase, PURPOSE, sizesOf(70))
  );
  assert(prefill !== decode);
});

Deno.test("planFor() tells plans apart by the arenas that a length takes", async () => {
  const model = await describeModel(NOVEL_LLAMA);
  // 2 heads of 32 components in f16: 128 bytes a slot.
  const device = { ...DEVICE, bindingBytes: 400 * 128 };
  const stores = (length: number) =>
    planFor(model, device, "decode", PURPOSE, sizesOf(length)).dispatches.filter(({ operation }) =>
      operation === "storeKeyValues"
    ).length;
  assertEquals(stores(400), 6);
  assertEquals(stores(401), 12);
});

Deno.test("generate() tells the time of every kernel when asked to, and only then", async () => {
  const model = await novelLlama("f32");
  const options = { maxTokens: 4, temperature: 0, ignoreEos: true };
  const plain = await generate(model, "He", options).record;
  assertEquals(plain.kernels, undefined);
  if (!model.store!.gpu.features.timestamps) return;
  const timed = await generate(model, "He", { ...options, timings: true }).record;
  assertEquals(timed.ids, plain.ids);
  const samples = timed.kernels!.find(({ name }) => name.startsWith("sample"))!;
  assertEquals(samples.count, 4);
  assert(timed.kernels!.every(({ count, milliseconds }) => count > 0 && milliseconds >= 0));
});
