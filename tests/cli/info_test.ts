import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { openGpu } from "../../mod.ts";
import { cairn } from "./run_cairn.ts";

Deno.test("info --json prints adapter, features, limits and versions", async () => {
  const { code, stdout, stderr } = await cairn(["info", "--json"]);
  assertEquals([code, stderr], [0, ""]);
  using gpu = await openGpu();
  const { adapter, features, limits, versions, ...rest } = JSON.parse(stdout);
  assertEquals([adapter, features, rest], [{ ...gpu.adapter }, { ...gpu.features }, {}]);
  assert(Object.keys(limits).length > 20);
  assertEquals(limits.maxStorageBufferBindingSize, gpu.limits.maxStorageBufferBindingSize);
  const { version } = JSON.parse(await Deno.readTextFile(new URL("../../deno.json", import.meta.url)));
  assertEquals(versions, {
    cairn: version,
    deno: Deno.version.deno,
    v8: Deno.version.v8,
    typescript: Deno.version.typescript,
  });
});

Deno.test("info prints the same for people", async () => {
  const { stdout } = await cairn(["info"]);
  for (const title of ["Adapter", "Features", "Limits", "Versions"]) {
    assertMatch(stdout, new RegExp(`^${title}$`, "m"));
  }
  assertMatch(stdout, new RegExp(`^  deno +${RegExp.escape(Deno.version.deno)}$`, "m"));
  assertMatch(stdout, /^ {2}binding +[\d.]+ [MG]iB$/m);
});

Deno.test("info tells of a graphics card that lies idle, on stderr and with the remedy", async () => {
  using gpu = await openGpu();
  const { code, stdout, stderr } = await cairn(["info", "--json"], { card: { vendor: "NVIDIA" } });
  assertEquals(code, 0);
  JSON.parse(stdout);
  if (!gpu.adapter.isFallback) return assertEquals(stderr, "");
  assertStringIncludes(stderr, "warning: This machine has a graphics card from NVIDIA");
  assertStringIncludes(stderr, "libvulkan1");
});

Deno.test("info takes no model", async () => {
  const { code, stderr } = await cairn(["info", "--model", "a"]);
  assertEquals(code, 2);
  assertStringIncludes(stderr, "cairn info has no --model");
});
