// Runs examples as a user does, and reads the pictures and tables that they write.

import { assert, assertEquals } from "@std/assert";
import { fromFileUrl, join } from "@std/path";

const ROOT = fromFileUrl(new URL("../../", import.meta.url));

/** Runs an example as a user does. */
export async function run(
  name: string,
  ...args: string[]
): Promise<{ code: number; stdout: string; stderr: string }> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--quiet", `examples/${name}`, ...args],
    cwd: ROOT,
    env: { NO_COLOR: "1" },
  }).output();
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

/** Runs an example and gives the files that it wrote. */
export async function runFor(
  name: string,
  ...args: string[]
): Promise<{ stdout: string; stderr: string; files: Map<string, string> }> {
  const out = await Deno.makeTempDir();
  try {
    const { code, stdout, stderr } = await run(name, ...args, "--out", out);
    assertEquals(code, 0, stderr);
    const files = new Map<string, string>();
    for (const { name } of Deno.readDirSync(out)) files.set(name, Deno.readTextFileSync(join(out, name)));
    return { stdout, stderr, files };
  } finally {
    await Deno.remove(out, { recursive: true });
  }
}

/** Asserts that a text is XML whose elements are nested, with an svg around all. */
export function assertSvg(text: string | undefined): void {
  assert(text);
  const open: string[] = [];
  let roots = 0;
  let rest = text.trimEnd();
  while (rest !== "") {
    const tag = /^<(\/?)([a-z]+)((?: [a-z-]+(?::[a-z]+)?="[^"<>&]*(?:&[a-z]+;[^"<>&]*)*")*)(\/?)>/i.exec(
      rest,
    );
    if (tag) {
      if (tag[1]) assertEquals(open.pop(), tag[2]);
      else {
        if (open.length === 0) assertEquals([tag[2], roots++], ["svg", 0]);
        if (!tag[4]) open.push(tag[2]);
      }
      rest = rest.slice(tag[0].length);
    } else {
      const between = /^[^<>&]+|^&(?:amp|lt|gt|quot);/.exec(rest);
      assert(between && open.length > 0, `No XML: ${rest.slice(0, 80)}`);
      rest = rest.slice(between[0].length);
    }
  }
  assertEquals(open, []);
  assert(!/NaN|undefined|Infinity/.test(text), "A shape has no place");
}

/** Rows of a CSV file, all as long as the first. */
export function csvRows(text: string | undefined): string[][] {
  assert(text);
  const rows: string[][] = [[]];
  for (const [, quoted, plain, end] of text.matchAll(/(?:"((?:[^"]|"")*)"|([^",\n]*))(,|\n)/g)) {
    rows.at(-1)!.push(quoted?.replaceAll('""', '"') ?? plain);
    if (end === "\n") rows.push([]);
  }
  assertEquals(rows.pop(), []);
  for (const row of rows) assertEquals(row.length, rows[0].length, row.join());
  return rows;
}
