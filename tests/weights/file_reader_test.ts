import { assertEquals, assertRejects } from "@std/assert";
import { openFileReader } from "../../lib/weights/file_reader.ts";
import { folder } from "./crafted.ts";

const NO_LEAKS = { sanitizeResources: true }; // every file that was opened must be closed

const BYTES = Uint8Array.from({ length: 100 }, (_, i) => i);

Deno.test("openFileReader() refuses what is not there and what is not a file", NO_LEAKS, async () => {
  await using made = await folder({});
  await assertRejects(() => openFileReader(made.file("none")), Error, "There is no file");
  await assertRejects(() => openFileReader(made.path), Error, "is not a file");
});

Deno.test("openFileReader() refuses a link whose file is gone", NO_LEAKS, async () => {
  await using made = await folder({});
  await Deno.symlink(made.file("gone"), made.file("link"));
  await assertRejects(() => openFileReader(made.file("link")), Error, "link to one that is gone");
});

Deno.test("readAt() serves calls that overlap each from its own offset", NO_LEAKS, async () => {
  await using made = await folder({ data: BYTES });
  using file = await openFileReader(made.file("data"));
  assertEquals(file.size, 100);
  const pieces = [90, 3, 50, 0].map((offset) => ({ offset, bytes: new Uint8Array(10) }));
  await Promise.all(pieces.map(({ offset, bytes }) => file.readAt(offset, bytes)));
  for (const { offset, bytes } of pieces) assertEquals(bytes, BYTES.slice(offset, offset + 10));
});

Deno.test("readAt() goes on after a short read", NO_LEAKS, async () => {
  await using made = await folder({ data: BYTES });
  using file = await openFileReader(made.file("data"));
  const original = Deno.FsFile.prototype.read;
  let calls = 0;
  Deno.FsFile.prototype.read = function (bytes: Uint8Array): Promise<number | null> {
    calls++;
    return original.call(this, bytes.subarray(0, 7));
  };
  try {
    const bytes = new Uint8Array(90);
    await file.readAt(5, bytes);
    assertEquals(bytes, BYTES.slice(5, 95));
    assertEquals(calls, 13);
  } finally {
    Deno.FsFile.prototype.read = original;
  }
});

Deno.test("readAt() fails past the end, and the next call still works", NO_LEAKS, async () => {
  await using made = await folder({ data: BYTES });
  using file = await openFileReader(made.file("data"));
  const past = file.readAt(95, new Uint8Array(10));
  const bytes = new Uint8Array(2);
  const next = file.readAt(1, bytes);
  await assertRejects(() => past, Error, "ended at byte 100");
  await next;
  assertEquals(bytes, Uint8Array.of(1, 2));
});

Deno.test("readAt() and assertUnchanged() fail after the file was closed", NO_LEAKS, async () => {
  await using made = await folder({ data: BYTES });
  const file = await openFileReader(made.file("data"));
  file[Symbol.dispose]();
  file[Symbol.dispose]();
  await assertRejects(() => file.readAt(0, new Uint8Array(1)), Error, "was disposed of");
  await assertRejects(() => file.assertUnchanged(), Error, "was disposed of");
});

Deno.test("assertUnchanged() notices another length and another time of change", NO_LEAKS, async () => {
  await using made = await folder({ data: BYTES, same: BYTES });
  using grown = await openFileReader(made.file("data"));
  await grown.assertUnchanged();
  const { mtime } = await Deno.stat(made.file("data"));
  await Deno.writeFile(made.file("data"), BYTES, { append: true });
  await Deno.utime(made.file("data"), mtime!, mtime!);
  await assertRejects(() => grown.assertUnchanged(), Error, "100 bytes before, 200 now");
  using touched = await openFileReader(made.file("same"));
  await Deno.utime(made.file("same"), 1, 1);
  await assertRejects(() => touched.assertUnchanged(), Error, "changed while it was open");
});
