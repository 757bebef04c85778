import { assertEquals, assertLess, assertThrows } from "@std/assert";
import {
  attention,
  type AttentionConfig,
  isAttention,
  mapLayers,
  type PipelineModel,
  type Rotary,
  rotaryEmbedding,
  softmaxCore,
  walkLayers,
  whole,
} from "../../lib/layers/mod.ts";
import { relativeError } from "../harness/compare.ts";
import { sharedGpu } from "../harness/kernel_case.ts";
import { pipelineLogits } from "../harness/pipeline_logits.ts";
import { loadRandomLlama, oracleTensors, randomIds, randomLlama } from "../harness/random_llama.ts";
import { rotaryFrequencies, rotate } from "../oracles/attention.ts";
import { llamaOracle, softmaxOracle } from "../oracles/llama.ts";

const MADE = randomLlama(
  { num_attention_heads: 4, num_key_value_heads: 2, head_dim: 16, hidden_size: 40 },
  21,
);

/** The model with another rotary embedding, or none. */
function withRotary(model: PipelineModel, rotary: Rotary | undefined): PipelineModel {
  const pipeline = mapLayers(model.pipeline, (layer) => {
    if (!isAttention(layer)) return layer;
    const { rotary: _, ...config } = layer.config;
    return attention(rotary ? { ...config, rotary } : config);
  });
  return { ...model, pipeline };
}

const EMBEDDINGS: Record<string, { layout: "half" | "interleaved" | "none"; size: number }> = {
  "no rotary embedding": { layout: "none", size: 0 },
  "interleaved pairs": { layout: "interleaved", size: 16 },
  "half of the components in halves": { layout: "half", size: 8 },
  "six components in pairs": { layout: "interleaved", size: 6 },
};

for (const [name, { layout, size }] of Object.entries(EMBEDDINGS)) {
  Deno.test(`attention() agrees with the f64 oracle (${name})`, async () => {
    const gpu = await sharedGpu();
    using model = await loadRandomLlama(gpu, MADE);
    const ids = randomIds(20, MADE.config.vocab_size, 22);
    const rotary = layout === "none"
      ? undefined
      : rotaryEmbedding({ theta: 10_000, size, positions: 64, layout });
    const core = softmaxOracle((head, position) =>
      Float64Array.from([
        ...rotate(head.slice(0, size), position, layout, rotaryFrequencies(size)),
        ...head.slice(size),
      ])
    );
    const want = llamaOracle(MADE.config, oracleTensors(MADE), ids, { core });
    const { logits } = await pipelineLogits(withRotary(model, rotary), [ids], { prefillRows: 9, decode: 4 });
    assertLess(relativeError(logits[0], want.logits), 1e-5);
  });
}

/** The first attention layer of the model. */
async function someConfig(): Promise<AttentionConfig> {
  using model = await loadRandomLlama(await sharedGpu(), MADE);
  return [...walkLayers(model.pipeline)].find(isAttention)!.config;
}

Deno.test("attention() says when weights do not fit its shape", async () => {
  const config = await someConfig();
  assertEquals(attention(config).kind, "attention");
  assertThrows(
    () => attention({ ...config, kvHeads: 3 }),
    TypeError,
    "attention needs heads to be a multiple of kvHeads: 4 and 3",
  );
  assertThrows(
    () => attention({ ...config, kvHeads: 4 }),
    TypeError,
    "attention key projection has 32 rows: 4 heads of 16 need 64",
  );
  assertThrows(
    () => attention({ ...config, weights: { ...config.weights, query: config.weights.value } }),
    TypeError,
    "attention query projection has 32 rows: 4 heads of 16 need 64",
  );
});

Deno.test("softmaxCore() can be prefilled in slices, and minds the model's position limit", () => {
  const { kind, prefill, positionLimit } = softmaxCore();
  assertEquals({ kind, prefill, positionLimit }, { kind: "softmax", prefill: "sliced", positionLimit: true });
});

Deno.test("attention() with an output projection that does not fit is refused when it is traced", async () => {
  const gpu = await sharedGpu();
  using model = await loadRandomLlama(gpu, MADE);
  const narrow = { name: "narrow", rows: 40, columns: 32, dtype: "f32" } as const;
  const pipeline = mapLayers(
    model.pipeline,
    (layer) =>
      isAttention(layer)
        ? attention({ ...layer.config, weights: { ...layer.config.weights, output: whole(narrow) } })
        : layer,
  );
  let message = "";
  await pipelineLogits({ ...model, pipeline }, [[1]]).catch((error) => message = error.message);
  assertEquals(message, "linear narrow takes rows of 32 numbers, its input has 64");
});
