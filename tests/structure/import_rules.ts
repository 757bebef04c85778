/**
 * What may import what: folders look downwards only, files in no circle, and outside packages are few.
 *
 * @module
 */

/** One import, type imports and dynamic ones included. Paths are from the root of the repository, with `/`. */
export interface Import {
  /** The importing file. */
  from: string;
  /** What stands between the quotes. */
  specifier: string;
  /** The imported file; a leading `../` where it lies outside; undefined for packages and built-ins. */
  to?: string;
}

const kernels = ["lib/gpu", "wgsl"];
const ops = [...kernels, "lib/graph", "lib/ops", "lib/cache"];
// Layers and what stands on them reach kernels through ops alone.
const layers = ops.filter((folder) => folder !== "wgsl");
const all = [...ops, "lib/layers", "lib/transforms", "lib/weights", "lib/text"];

/** For each folder the others that it may import from. */
export const allowed: Readonly<Record<string, readonly string[]>> = {
  "lib/gpu": [],
  "wgsl": [],
  "lib/graph": kernels,
  "lib/ops": [...kernels, "lib/graph"],
  "lib/cache": [...kernels, "lib/graph", "lib/ops"],
  "lib/layers": layers,
  "lib/transforms": [...layers, "lib/layers"],
  "lib/weights": [],
  "lib/text": [],
  "lib/models": all,
  "lib/generate": [...all, "lib/models"],
  "lib/cli": ["mod.ts"],
  "mod.ts": [...all, "lib/models", "lib/generate"],
};

/** The packages that the code may name. */
export const packages: readonly string[] = [
  "@huggingface/jinja",
  "@huggingface/tokenizers",
  "@std/assert",
  "@std/cli",
  "@std/path",
];

const self = "@cairn/cairn";

/** The folder whose rules hold for a file: the first two parts under lib/, else the first. */
export function folderOf(path: string): string {
  const parts = path.split("/");
  return parts[0] === "lib" ? parts.slice(0, 2).join("/") : parts[0];
}

/** Whether a file is part of what users get. */
function shipped(path: string): boolean {
  return path === "mod.ts" || path.startsWith("lib/") || path.startsWith("wgsl/");
}

function packageOf(specifier: string): string {
  return specifier.split("/").slice(0, specifier.startsWith("@") ? 2 : 1).join("/");
}

function packageViolation({ from, specifier }: Import): string | undefined {
  const name = packageOf(specifier);
  if (specifier.startsWith("node:")) {
    return shipped(from) ? `${from} imports ${specifier}: use what Deno and the web offer` : undefined;
  }
  if (name === self) {
    return shipped(from) ? `${from} imports its own package: name the file` : undefined;
  }
  if (!packages.includes(name)) return `${from} imports ${specifier}: allowed are ${packages.join(", ")}`;
  if (name === "@std/assert" && !from.startsWith("tests/")) {
    return `${from} imports @std/assert: it is for tests alone`;
  }
  return undefined;
}

function fileViolation({ from, specifier, to }: Import): string | undefined {
  if (to === undefined) return undefined;
  if (to.startsWith("../")) return `${from} imports ${specifier}: it lies outside the repository`;
  if (!shipped(from)) return undefined;
  const [own, other] = [folderOf(from), folderOf(to)];
  const rule = allowed[own];
  if (rule === undefined) return `${from} is in ${own}, which has no place in the order of folders`;
  if (own === other || rule.includes(other)) return undefined;
  return `${from} imports ${to}: ${own} may import from ${rule.join(", ") || "no other folder"}`;
}

/** @returns A sentence for every import that breaks a rule. */
export function importViolations(imports: readonly Import[]): string[] {
  return imports
    .map((each) => /^[./]|^file:/.test(each.specifier) ? fileViolation(each) : packageViolation(each))
    .filter((sentence) => sentence !== undefined);
}

/** @returns A sentence for every file that lies in no folder of the order. */
export function placeViolations(files: readonly string[]): string[] {
  return files
    .filter((file) => shipped(file) && !Object.hasOwn(allowed, folderOf(file)))
    .map((file) => `${file} lies in no folder of the order: ${Object.keys(allowed).join(", ")}`);
}

/**
 * The circles of files that import each other.
 *
 * @returns At least one for every group of such files, as `a.ts -> b.ts -> a.ts`; empty only where there is none.
 */
export function importCycles(imports: readonly Import[]): string[] {
  const edges = Map.groupBy(imports.filter(({ to }) => to !== undefined), ({ from }) => from);
  const cycles: string[] = [];
  const done = new Set<string>();
  const path: string[] = [];
  const visit = (file: string): void => {
    const start = path.indexOf(file);
    if (start !== -1) cycles.push([...path.slice(start), file].join(" -> "));
    if (start !== -1 || done.has(file)) return;
    path.push(file);
    for (const { to } of edges.get(file) ?? []) visit(to!);
    path.pop();
    done.add(file);
  };
  for (const file of edges.keys()) visit(file);
  return cycles;
}
