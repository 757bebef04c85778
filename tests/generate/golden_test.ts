// Real checkpoints against logits, likelihoods and greedy texts computed with PyTorch.

import { assert, assertEquals, assertLess } from "@std/assert";
import { fromFileUrl, join } from "@std/path";
import { forward, generate, score } from "../../lib/generate/mod.ts";
import { loadModel, type Model } from "../../lib/models/mod.ts";
import { sharedGpu } from "../harness/kernel_case.ts";
import { exists, NOVEL_LLAMA, NOVEL_TRANSNORMER, sharedPath } from "../harness/models.ts";

interface GoldenPrompt {
  readonly ids: number[];
  /** Of the last position, all of them; only some prompts have it. */
  readonly logits?: number[];
  readonly top20_ids: number[];
  readonly top20_logits: number[];
  /** Over the whole prompt; only the longest one has it. */
  readonly mean_nll?: number;
  readonly nll_positions?: number;
  /** Empty where the prompt fills the context. */
  readonly greedy_48: number[];
  /** How many tokens come before a near tie, where there is one. */
  readonly greedy_sure_tokens?: number;
}

interface Golden {
  readonly prompts: GoldenPrompt[];
}

/** A model and its golden; those beside the repository may be absent. */
const MODELS = [
  ...Object.entries({ "novel-llama": NOVEL_LLAMA, "novel-transnormer": NOVEL_TRANSNORMER }).map((
    [name, directory],
  ) => ({
    name,
    directory,
    golden: fromFileUrl(new URL(`../golden/${name}.json`, import.meta.url)),
  })),
  ...[
    "novel-softmax",
    "tinystories-656k",
    "stories260k",
    "novel-linear",
    "novel-t1",
    "novel-tnllm",
  ].map((name) => ({
    name,
    directory: sharedPath(name),
    golden: sharedPath("golden", `${name}.json`),
  })),
];

const gpu = await sharedGpu();

async function readGolden(path: string): Promise<Golden> {
  return JSON.parse(await Deno.readTextFile(path));
}

function assertLogits(actual: Float32Array, { logits, top20_ids, top20_logits }: GoldenPrompt): void {
  const wanted = logits
    ? logits.map((value, id) => [id, value])
    : top20_ids.map((id, i) => [id, top20_logits[i]]);
  for (const [id, value] of wanted) {
    const difference = Math.abs(actual[id] - value);
    assert(difference < 2e-3, `logit of token ${id} is ${actual[id]}, ${difference} from the golden`);
  }
}

/** Mean negative log-likelihood of the prompts that have one, in one window. */
async function assertMeanNll(model: Model, golden: Golden, tolerance: number): Promise<void> {
  const prompts = golden.prompts.filter((prompt) => prompt.mean_nll !== undefined);
  assertEquals(prompts.length, 1);
  for (const { ids, mean_nll, nll_positions } of prompts) {
    const { meanNll, tokens } = await score(model, ids, { window: ids.length });
    assertEquals(tokens, nll_positions);
    assertLess(Math.abs(meanNll - mean_nll!), tolerance);
  }
}

for (const { name, directory, golden: path } of MODELS) {
  const absent = !exists(directory) || !exists(path);

  Deno.test({
    name: `generate(), forward() and score() of ${name} in f32 give what PyTorch gives`,
    ignore: absent,
    async fn(): Promise<void> {
      using model = await loadModel(gpu, directory, { dtype: "f32" });
      assertEquals(model.warnings, []);
      const golden = await readGolden(path);
      assertEquals(golden.prompts.length, 4);
      await assertMeanNll(model, golden, 1e-4);
      for (const prompt of golden.prompts) {
        const { logits } = await forward(model, prompt.ids, { lastOnly: true });
        assertLogits(logits, prompt);
        if (prompt.greedy_48.length === 0) continue;
        const record = await generate(model, prompt.ids, { maxTokens: 48, temperature: 0, ignoreEos: true })
          .record;
        assertEquals(record.ids.length, 48);
        const sure = prompt.greedy_sure_tokens ?? 48;
        assertEquals(record.ids.slice(0, sure), prompt.greedy_48.slice(0, sure));
      }
    },
  });

  Deno.test({
    name: `score() of ${name} in f16 gives the likelihood that PyTorch gives`,
    ignore: absent || !gpu.features.f16,
    async fn(): Promise<void> {
      using model = await loadModel(gpu, directory, { dtype: "f16" });
      await assertMeanNll(model, await readGolden(path), 5e-3);
    },
  });
}

Deno.test({
  name: "novel-tnllm without the fields that released configs do not have gives what PyTorch gives",
  ignore: !exists(sharedPath("novel-tnllm")),
  async fn(): Promise<void> {
    const source = sharedPath("novel-tnllm");
    const directory = await Deno.makeTempDir();
    try {
      const config = JSON.parse(await Deno.readTextFile(join(source, "config.json")));
      for (const field of ["slopes", "norm_eps", "variant", "lrpe_base"]) {
        assert(field in config);
        delete config[field];
      }
      await Deno.writeTextFile(join(directory, "config.json"), JSON.stringify(config));
      await Deno.symlink(join(source, "model.safetensors"), join(directory, "model.safetensors"));
      using model = await loadModel(gpu, directory, { dtype: "f32" });
      const golden = await readGolden(sharedPath("golden", "novel-tnllm.json"));
      for (const prompt of golden.prompts.slice(0, 2)) {
        assertLogits((await forward(model, prompt.ids, { lastOnly: true })).logits, prompt);
      }
    } finally {
      await Deno.remove(directory, { recursive: true });
    }
  },
});
