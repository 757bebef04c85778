// deno task bench [kernels|models|kv] [--filter NAME] [--part PART] [--prompt N] [--all]
// [--out FILE]: figures of this machine beside its ceilings.

import { parseArgs } from "@std/cli/parse-args";
import { openGpu } from "../../lib/gpu/mod.ts";
import { measureCeilings } from "./ceilings.ts";
import { benchKernels } from "./kernels.ts";
import { benchKv } from "./kv.ts";
import { benchModels } from "./models.ts";
import { short } from "./table.ts";

const args = parseArgs(Deno.args, { string: ["filter", "out", "part", "prompt"], boolean: ["all", "help"] });
const parts = args._.map(String);
if (args.help || parts.some((part) => !["kernels", "models", "kv"].includes(part))) {
  console.error(
    "deno task bench [kernels|models|kv] [--filter FAMILY or MODEL] [--part prefill|decode|batch] " +
      "[--prompt N] [--all] [--out FILE]",
  );
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
if (wanted("kernels")) {
  const options = { all: args.all, ...(args.filter ? { filter: args.filter } : {}) };
  show("Kernels", await benchKernels(gpu, ceilings, options));
}
if (args.out) await Deno.writeTextFile(args.out, sections.join("\n") + "\n");
