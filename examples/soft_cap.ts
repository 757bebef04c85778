// A layer of your own, kernel included: logits capped softly, cap · tanh(logits / cap), as Gemma 2 does.
//
//   deno run -A examples/soft_cap.ts

import {
  defineKernel,
  type Layer,
  leaf,
  type Logits,
  type OpDefinition,
  pipe,
  read,
  valueOperand,
  write,
} from "../lib/layers/mod.ts";
import { generate, loadModel, type Model, openGpu, printLayers } from "../mod.ts";

/** The kernel: one invocation a number. */
const kernel = defineKernel({
  name: "softCap",
  parameters: { count: "u32", cap: "f32" },
  bindings: [read("x", "array<f32>"), write("out", "array<f32>")],
  grid: ({ count }) => [Math.ceil(count / 256), 1, 1],
  body: `@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < params.count) { out[id.x] = params.cap * tanh(x[id.x] / params.cap); }
}`,
});

/** The op: which buffers and numbers a call gets. */
const softCapOp: OpDefinition<{ cap: number }> = {
  kind: "softCap",
  lower({ inputs: [x], outputs: [y], attributes: { cap } }, emit): void {
    emit.dispatch(
      kernel,
      [valueOperand(x), valueOperand(y)],
      (counts) => ({ count: counts[x.rows.name] * x.width, cap }),
    );
  },
};

/** The layer. */
function softCap(cap: number): Layer<Logits, Logits> {
  return leaf<Logits, Logits, { cap: number }>("softCap", { cap }, (trace, logits) => {
    const capped = trace.value("softCap", logits.value.rows, logits.value.width);
    trace.append(softCapOp, [logits.value], [capped], { cap });
    return { type: "logits", value: capped };
  });
}

using gpu = await openGpu();
using model = await loadModel(gpu, "examples/models/novel-llama");
const capped: Model = { ...model, pipeline: pipe(model.pipeline, softCap(5)) };
console.log(printLayers(capped.pipeline).split("\n").slice(-3).join("\n"));
for (const [name, one] of [["plain", model], ["capped", capped]] as const) {
  const { text, logprobs } = await generate(one, "The rain", { maxTokens: 20, seed: 7, logprobs: 1 }).record;
  console.log(`\n${name}: The rain${text}`);
  console.log(`likeliest first token: ${logprobs![0].top[0].logprob.toFixed(3)}`);
}
