// deno task bench [kernels|models|kv|linear] [--filter NAME] [--part PART] [--prompt N]
// [--cores A,B] [--longest N] [--budget-seconds N] [--all] [--out FILE]: figures of this machine beside its ceilings.

import { parseArgs } from "@std/cli/parse-args";
import { join } from "@std/path";
import { openGpu } from "../../lib/gpu/mod.ts";
import { measureCeilings } from "./ceilings.ts";
import { benchKernels } from "./kernels.ts";
import { benchKv } from "./kv.ts";
import { benchLinear } from "./linear.ts";
import { benchModels } from "./models.ts";
import { short } from "./table.ts";

const PARTS = ["kernels", "models", "kv", "linear"];
const HELP = `deno task bench [${PARTS.join("|")}] [options]

  --filter NAME           of kernels: families whose name contains it; of kv and linear: one model
  --part PART             of kv: prefill, decode or batch; of linear: kernels, decode or prefill
  --prompt N              of kv: prompts of this length alone
  --cores A,B             of linear: these cores alone (softmax, norm-attention, lightning-attention)
  --longest N             of linear: longest position and prompt (65536; on a CPU driver 256)
  --budget-seconds N      of linear: seconds after which cells are left out (420)
  --all                   of kernels: all decisions, not only the chosen ones
  --out FILE              writes the report; of linear alone a folder, with pictures and CSV`;

const args = parseArgs(Deno.args, {
  string: ["filter", "out", "part", "prompt", "cores", "longest", "budget-seconds"],
  boolean: ["all", "help"],
});
const parts = args._.map(String);
if (args.help || parts.some((part) => !PARTS.includes(part))) {
  console.error(HELP);
  Deno.exit(args.help ? 0 : 2);
}
const wanted = (part: string) => parts.length === 0 || parts.includes(part);

using gpu = await openGpu();
const ceilings = await measureCeilings(gpu);
const sections = [
  `Device: ${gpu.adapter.description || gpu.adapter.vendor}; Deno ${Deno.version.deno}; ` +
  `${gpu.features.f16 ? "f16" : "f32"}, ${gpu.features.subgroups ? "subgroups" : "no subgroups"}.`,
  `Ceilings, measured in the same run: copy ${short(ceilings.bytesPerSecond / 1e9)} GB/s, ` +
  `f32 multiply-add ${short(ceilings.flopsPerSecond / 1e12)} TFLOP/s.`,
];
if (gpu.adapter.isFallback) {
  sections.push("This is a CPU driver: times are noise, shapes are those of the tests.");
}
console.log(sections.join("\n"));
const show = (title: string, table: string) => {
  const section = `\n## ${title}\n\n${table}`;
  sections.push(section);
  console.log(section);
};
if (wanted("models")) show("Models", await benchModels(gpu, ceilings));
if (wanted("kv")) {
  show(
    "Full and pruned KV cache",
    await benchKv(
      gpu,
      parts.includes("kv") ? args.filter : undefined,
      args.part,
      args.prompt ? Number(args.prompt) : undefined,
    ),
  );
}
/** Where the comparison of linear attention writes its pictures, when it is asked for alone. */
const folder = parts.join() === "linear" ? args.out : undefined;
if (wanted("linear")) {
  const { cores, longest, "budget-seconds": seconds } = args;
  show(
    "Linear and softmax attention",
    await benchLinear(gpu, {
      ceilings,
      ...(parts.includes("linear") && args.filter ? { model: args.filter } : {}),
      ...(parts.includes("linear") && args.part ? { part: args.part } : {}),
      ...(cores ? { cores: cores.split(",") } : {}),
      ...(longest ? { longest: Number(longest) } : {}),
      ...(seconds ? { seconds: Number(seconds) } : {}),
      ...(folder ? { out: folder } : {}),
    }),
  );
}
if (wanted("kernels")) {
  const options = { all: args.all, ...(args.filter ? { filter: args.filter } : {}) };
  show("Kernels", await benchKernels(gpu, ceilings, options));
}
const report = folder ? join(folder, "linear.md") : args.out;
if (report) await Deno.writeTextFile(report, sections.join("\n") + "\n");
