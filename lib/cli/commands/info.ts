// cairn info: what runs here.

import { formatBytes, type Gpu, openGpu } from "../../../mod.ts";
import { columns } from "../columns.ts";
import { type Command, print } from "../command.ts";
import { EXIT } from "../errors.ts";
import { warnIdleCard } from "../open_model.ts";
import { VERSION } from "../version.ts";

/** Tells the adapter, what it can do, and the versions. */
export const info: Command = {
  name: "info",
  summary: "Tell the GPU, its features and limits, and the versions",
  examples: [
    ["info", "Which GPU is used, and whether it is a real one"],
    ["info --json", "The same as JSON"],
  ],
  flags: ["json"],
  async run(io, values) {
    using gpu = await openGpu();
    await warnIdleCard(io, gpu);
    const { adapter, features } = gpu;
    const { deno, v8, typescript } = Deno.version;
    const report = {
      adapter,
      features,
      limits: limitsOf(gpu),
      versions: { cairn: VERSION, deno, v8, typescript },
    };
    await print(io, values.json ? report : readable(report));
    return EXIT.ok;
  },
};

/** The limits as plain data; they are getters of the prototype. */
function limitsOf({ limits }: Gpu): Record<string, number> {
  const plain: Record<string, number> = {};
  for (const name in limits) {
    const value: unknown = limits[name as keyof GPUSupportedLimits];
    if (typeof value === "number") plain[name] = value;
  }
  return plain;
}

interface Report {
  readonly adapter: Gpu["adapter"];
  readonly features: Gpu["features"];
  readonly limits: Readonly<Record<string, number>>;
  readonly versions: Readonly<Record<string, string>>;
}

function readable({ adapter, features, limits, versions }: Report): string {
  const yes = (value: boolean) => value ? "yes" : "no";
  const sizes = features.subgroupMinSize === features.subgroupMaxSize
    ? `${features.subgroupMinSize}`
    : `${features.subgroupMinSize} to ${features.subgroupMaxSize}`;
  const limit = (name: string) => name.endsWith("Size") ? formatBytes(limits[name]) : `${limits[name]}`;
  const section = (title: string, rows: string[][]) => `${title}\n${columns(rows, { indent: "  " })}`;
  return [
    section("Adapter", [
      ["description", adapter.description || "none given"],
      ["kind", adapter.isFallback ? "CPU driver" : "GPU"],
      ["vendor, device", `${adapter.vendor}, ${adapter.device}`],
    ]),
    section("Features", [
      ["f16", yes(features.f16)],
      ["subgroups", features.subgroups ? `yes, of ${sizes}` : "no"],
      ["timestamps", yes(features.timestamps)],
    ]),
    section("Limits", [
      ["buffer", limit("maxBufferSize")],
      ["binding", limit("maxStorageBufferBindingSize")],
      ["workgroup memory", limit("maxComputeWorkgroupStorageSize")],
      ["workgroup invocations", limit("maxComputeInvocationsPerWorkgroup")],
      ["workgroups a dimension", limit("maxComputeWorkgroupsPerDimension")],
    ]),
    section("Versions", Object.entries(versions)),
  ].join("\n");
}
