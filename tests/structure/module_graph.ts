/**
 * The imports of the repository as Deno itself reads them: comments and texts that look like imports are none.
 *
 * @module
 */

import { fromFileUrl, join, relative, SEPARATOR, toFileUrl } from "@std/path";
import type { Import } from "./import_rules.ts";

/** The part of `deno info --json` that is read here. */
interface Info {
  modules: {
    specifier: string;
    error?: string;
    dependencies?: {
      specifier: string;
      code?: { specifier?: string; error?: string };
      type?: { specifier?: string; error?: string };
    }[];
  }[];
}

/** The files read and what they import. */
export interface ModuleGraph {
  /** Paths from the root, sorted. */
  files: string[];
  /** Every import of these files. */
  imports: Import[];
}

function slashed(path: string): string {
  return path.replaceAll(SEPARATOR, "/");
}

/** All TypeScript files under a path, as absolute paths. */
function typeScriptFiles(path: string): string[] {
  const stat = Deno.statSync(path);
  if (stat.isFile) return path.endsWith(".ts") ? [path] : [];
  return [...Deno.readDirSync(path)].flatMap((entry) => typeScriptFiles(join(path, entry.name)));
}

async function denoInfo(root: string, files: string[]): Promise<Info> {
  // One entry that imports every file, so that Deno starts once.
  const entry = await Deno.makeTempFile({ suffix: ".ts" });
  try {
    await Deno.writeTextFile(entry, files.map((file) => `import "${toFileUrl(file)}";\n`).join(""));
    const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["info", "--json", "--config", join(root, "deno.json"), entry],
      env: { NO_COLOR: "1" },
    }).output();
    if (!success) throw new Error(`deno info failed: ${new TextDecoder().decode(stderr)}`);
    return JSON.parse(new TextDecoder().decode(stdout));
  } finally {
    await Deno.remove(entry);
  }
}

/**
 * Reads the imports of a repository.
 *
 * @param root The folder with `deno.json`.
 * @param under The files and folders to read, from the root; missing ones are left out.
 * @throws {Error} When a file imports one that does not exist or cannot be parsed.
 */
export async function moduleGraph(root: string, under: readonly string[]): Promise<ModuleGraph> {
  const present = await Array.fromAsync(under, async (path) => {
    const exists = await Deno.stat(join(root, path)).then(() => true, () => false);
    return exists ? typeScriptFiles(join(root, path)) : [];
  });
  const files = present.flat();
  const info = await denoInfo(root, files);
  const fromRoot = (url: string) => slashed(relative(root, fromFileUrl(url)));

  const wanted = new Set(files.map((file) => toFileUrl(file).href));
  const imports: Import[] = [];
  for (const { specifier: url, error, dependencies } of info.modules) {
    if (error) throw new Error(`Cannot read the module graph: ${error}`);
    if (!wanted.delete(url)) continue;
    for (const { specifier, code, type } of dependencies ?? []) {
      const problem = code?.error ?? type?.error;
      if (problem) throw new Error(`Cannot read the module graph: ${fromRoot(url)}: ${problem}`);
      const target = code?.specifier ?? type?.specifier;
      const to = target?.startsWith("file:") ? fromRoot(target) : undefined;
      imports.push({ from: fromRoot(url), specifier, to });
    }
  }
  if (wanted.size > 0) throw new Error(`Deno did not read ${[...wanted].join(", ")}`);
  return { files: files.map((file) => slashed(relative(root, file))).sort(), imports };
}
