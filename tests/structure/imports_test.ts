import { assert, assertArrayIncludes, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { fromFileUrl, join } from "@std/path";
import { allowed, type Import, importCycles, importViolations, placeViolations } from "./import_rules.ts";
import { type ModuleGraph, moduleGraph } from "./module_graph.ts";

const root = fromFileUrl(new URL("../..", import.meta.url));
let reading: Promise<ModuleGraph> | undefined;

/** The graph of this repository, read once. */
function repository(): Promise<ModuleGraph> {
  return reading ??= moduleGraph(root, ["mod.ts", "lib", "wgsl", "tests", "examples"]);
}

Deno.test("folders import downwards only, and outside packages are the five allowed", async () => {
  assertEquals(importViolations((await repository()).imports), []);
});

Deno.test("every shipped file lies in a folder of the order", async () => {
  assertEquals(placeViolations((await repository()).files), []);
});

Deno.test("no files import each other in a circle", async () => {
  assertEquals(importCycles((await repository()).imports), []);
});

Deno.test("the graph that is judged holds the project's files and their imports", async () => {
  const graph = await repository();
  assertArrayIncludes(graph.files, ["mod.ts", "tests/structure/imports_test.ts", "tests/std/cli/mod.ts"]);
  assertArrayIncludes(graph.imports, [
    {
      from: "tests/structure/imports_test.ts",
      specifier: "./module_graph.ts",
      to: "tests/structure/module_graph.ts",
    },
    // A type import counts as any other.
    {
      from: "tests/structure/module_graph.ts",
      specifier: "./import_rules.ts",
      to: "tests/structure/import_rules.ts",
    },
  ]);
});

function link(from: string, to: string): Import {
  return { from, specifier: `./${to}`, to };
}

/** A file of a folder, for graphs made up here. */
function fileOf(folder: string): string {
  return folder === "mod.ts" ? folder : `${folder}/file.ts`;
}

const folders = Object.keys(allowed);

Deno.test("importViolations() refuses every pair of folders that is not allowed, and no other", () => {
  for (const from of folders) {
    for (const to of folders.filter((folder) => folder !== from)) {
      const found = importViolations([link(fileOf(from), fileOf(to))]);
      assertEquals(found.length, allowed[from].includes(to) ? 0 : 1, `${from} -> ${to}: ${found}`);
    }
  }
});

Deno.test("importViolations() lets no folder look upwards", () => {
  // The order of the table is the order of the folders: what is allowed stands before, but for the CLI's mod.ts.
  for (const [i, from] of folders.entries()) {
    const above = allowed[from].filter((to) => folders.indexOf(to) >= i);
    assertEquals(above, from === "lib/cli" ? ["mod.ts"] : []);
  }
});

Deno.test("importViolations() lets files of one folder import each other", () => {
  assertEquals(importViolations([link("lib/gpu/a.ts", "lib/gpu/deep/b.ts")]), []);
});

const refused: [string, Import, RegExp][] = [
  [
    "kernels that know of models",
    link("wgsl/matmul.ts", "lib/models/llama.ts"),
    /wgsl may import from no other folder/,
  ],
  ["layers that pick kernels", link("lib/layers/linear.ts", "wgsl/matmul.ts"), /lib\/layers may import from/],
  ["weights that know the GPU", link("lib/weights/safetensors.ts", "lib/gpu/device.ts"), /lib\/weights may/],
  ["text that knows the GPU", link("lib/text/tokenizer.ts", "lib/gpu/device.ts"), /lib\/text may/],
  [
    "a command line that reaches inside",
    link("lib/cli/main.ts", "lib/generate/generate.ts"),
    /may import from mod\.ts/,
  ],
  [
    "generation that knows the command line",
    link("lib/generate/a.ts", "lib/cli/main.ts"),
    /lib\/generate may/,
  ],
  ["the public API with the command line", link("mod.ts", "lib/cli/main.ts"), /mod\.ts may import from/],
  ["shipped code that imports tests", link("lib/ops/add.ts", "tests/oracles/add.ts"), /lib\/ops may import/],
  ["a kernel that imports tests", link("wgsl/add.ts", "tests/oracles/add.ts"), /wgsl may import/],
  ["a folder that is not in the order", link("lib/misc/a.ts", "lib/misc/b.ts"), /no place in the order/],
  [
    "a file outside",
    { from: "tests/a_test.ts", specifier: "../../shared/a.ts", to: "../shared/a.ts" },
    /outside/,
  ],
  ["another package", { from: "lib/text/a.ts", specifier: "@std/json" }, /allowed are/],
  ["a part of another package", { from: "lib/text/a.ts", specifier: "zod/v4" }, /allowed are/],
  ["an npm package by address", { from: "tests/a_test.ts", specifier: "npm:zod@4" }, /allowed are/],
  ["a JSR package by address", { from: "tests/a_test.ts", specifier: "jsr:@std/path@1" }, /allowed are/],
  ["a module from the web", { from: "examples/a.ts", specifier: "https://example.com/a.ts" }, /allowed are/],
  ["@std/assert outside of tests", { from: "lib/gpu/a.ts", specifier: "@std/assert" }, /for tests alone/],
  ["@std/assert in examples", { from: "examples/a.ts", specifier: "@std/assert/equals" }, /for tests alone/],
  [
    "Node's built-ins in shipped code",
    { from: "lib/gpu/a.ts", specifier: "node:fs" },
    /what Deno and the web/,
  ],
  [
    "the package's own name in itself",
    { from: "lib/cli/a.ts", specifier: "@cairn/cairn", to: "mod.ts" },
    /own/,
  ],
];

for (const [name, each, sentence] of refused) {
  Deno.test(`importViolations() refuses ${name}`, () => {
    const found = importViolations([link("lib/ops/a.ts", "lib/graph/b.ts"), each]);
    assertEquals(found.length, 1, String(found));
    assertMatch(found[0], sentence);
    assert(found[0].startsWith(each.from), found[0]);
  });
}

const accepted: [string, Import][] = [
  ["the command line on the public API", link("lib/cli/main.ts", "mod.ts")],
  ["the command line on @std/cli", { from: "lib/cli/main.ts", specifier: "@std/cli/parse-args" }],
  ["a package resolved to its stand-in", {
    from: "lib/text/a.ts",
    specifier: "@std/path",
    to: "tests/std/path/mod.ts",
  }],
  ["tests on anything within", link("tests/gpu/device_test.ts", "lib/gpu/device.ts")],
  ["tests on @std/assert", { from: "tests/a_test.ts", specifier: "@std/assert" }],
  ["stand-ins on Node's built-ins", { from: "tests/std/path/mod.ts", specifier: "node:path" }],
  ["examples on the package's name", { from: "examples/demo.ts", specifier: "@cairn/cairn", to: "mod.ts" }],
];

for (const [name, each] of accepted) {
  Deno.test(`importViolations() accepts ${name}`, () => {
    assertEquals(importViolations([each]), []);
  });
}

Deno.test("placeViolations() names files outside of the order, with or without imports", () => {
  const found = placeViolations(["mod.ts", "lib/gpu/a.ts", "lib/misc/a.ts", "lib/a.ts", "tests/a.ts"]);
  assertEquals(found.map((sentence) => sentence.split(" ")[0]), ["lib/misc/a.ts", "lib/a.ts"]);
});

Deno.test("importCycles() finds circles of any length and no others", () => {
  const chain = [link("a.ts", "b.ts"), link("b.ts", "c.ts"), link("a.ts", "c.ts")];
  assertEquals(importCycles(chain), []);
  assertEquals(importCycles([...chain, link("c.ts", "a.ts")]), ["a.ts -> b.ts -> c.ts -> a.ts"]);
  assertEquals(
    importCycles([link("b.ts", "c.ts"), link("c.ts", "b.ts"), link("y.ts", "z.ts"), link("z.ts", "y.ts")]),
    [
      "b.ts -> c.ts -> b.ts",
      "y.ts -> z.ts -> y.ts",
    ],
  );
  assertEquals(importCycles([link("a.ts", "a.ts")]), ["a.ts -> a.ts"]);
  assertEquals(importCycles([link("z.ts", "a.ts"), link("a.ts", "b.ts"), link("b.ts", "a.ts")]), [
    "a.ts -> b.ts -> a.ts",
  ]);
});

/** Writes a small repository, reads its graph and removes it. */
async function graphOf(files: Record<string, string>): Promise<Import[]> {
  const folder = await Deno.realPath(await Deno.makeTempDir());
  try {
    for (const [path, text] of Object.entries({ "deno.json": "{}", ...files })) {
      await Deno.mkdir(join(folder, path, ".."), { recursive: true });
      await Deno.writeTextFile(join(folder, path), text);
    }
    return (await moduleGraph(folder, ["mod.ts", "lib", "absent"])).imports;
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("moduleGraph() sees every kind of import and nothing that only looks like one", async () => {
  const imports = await graphOf({
    "mod.ts": [
      'export * from "./lib/a.ts";',
      'import type { B } from "./lib/b.ts";',
      'export type C = import("./lib/c.ts").C & B;',
      'export const load = (): Promise<unknown> => import("./lib/d.ts");',
      '/** import "./lib/comment.ts"; */',
      'export const text = `\nimport "./lib/text.ts";\n`;',
    ].join("\n"),
    "lib/a.ts": "export const a = 1;",
    "lib/b.ts": "export type B = 1;",
    "lib/c.ts": "export type C = 1;",
    "lib/d.ts": "export const d = 1;",
  });
  assertEquals(imports, ["a", "b", "c", "d"].map((name) => link("mod.ts", `lib/${name}.ts`)));
});

Deno.test("moduleGraph() finds what breaks the rules in real files", async () => {
  const imports = await graphOf({
    "lib/gpu/a.ts": 'import type { B } from "../graph/b.ts";\nexport type A = B;',
    "lib/graph/b.ts": 'import type { A } from "../gpu/a.ts";\nexport type B = A | 1;',
  });
  assertMatch(importViolations(imports).join("\n"), /^lib\/gpu\/a\.ts imports lib\/graph\/b\.ts: [^\n]+$/);
  assertEquals(importCycles(imports), ["lib/gpu/a.ts -> lib/graph/b.ts -> lib/gpu/a.ts"]);
});

Deno.test("moduleGraph() refuses to judge what cannot be read", async () => {
  await assertRejects(() => graphOf({ "mod.ts": 'import "./lib/missing.ts";' }), Error, "lib/missing.ts");
});
