import { assertEquals, assertRejects } from "@std/assert";
import { lineReader } from "../../lib/cli/lines.ts";
import { streamOf } from "./fake_io.ts";

async function lines(...chunks: string[]): Promise<string[]> {
  const read = lineReader(streamOf(...chunks));
  const { signal } = new AbortController();
  const all: string[] = [];
  for (let line = await read(signal); line !== undefined; line = await read(signal)) all.push(line);
  return all;
}

Deno.test("lineReader() gives lines however they are cut into chunks", async () => {
  assertEquals(await lines("a", "b\nc", "\n\nd\n"), ["ab", "c", "", "d"]);
});

Deno.test("lineReader() takes CR LF, and a last line without an end", async () => {
  assertEquals(await lines("a\r", "\nb"), ["a", "b"]);
});

Deno.test("lineReader() gives nothing of an empty stream", async () => assertEquals(await lines(), []));

Deno.test("lineReader() puts characters together that are cut between chunks", async () => {
  const [first, second] = [new Uint8Array([0xe2, 0x82]), new Uint8Array([0xac, 0x0a])];
  const read = lineReader(ReadableStream.from([first, second]));
  assertEquals(await read(new AbortController().signal), "€");
});

Deno.test("lineReader() stops waiting when it is aborted", async () => {
  const controller = new AbortController();
  const read = lineReader(new ReadableStream<Uint8Array>())(controller.signal);
  controller.abort(new Error("enough"));
  await assertRejects(() => read, Error, "enough");
});
