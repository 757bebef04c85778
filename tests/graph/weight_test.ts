import { assert, assertEquals, assertThrows } from "@std/assert";
import { storageBytes, type Weight, weightBytes, weightParts, whole } from "../../lib/graph/mod.ts";

const ROWS = [1, 2, 7, 8, 9, 16, 31, 64, 100, 257, 1000];
const COLUMNS = [1, 3, 4, 36, 129];

Deno.test("weightParts() covers every row once, each part within the limit, in as few parts as possible", () => {
  for (const dtype of ["f16", "f32"] as const) {
    for (const rows of ROWS) {
      for (const columns of COLUMNS) {
        const weight: Weight = { name: "w", rows, columns, dtype };
        const rowBytes = columns * storageBytes(dtype);
        for (const limit of [rowBytes, 2 * rowBytes - 1, 7 * rowBytes, 8 * rowBytes, 9.5 * rowBytes, 1e9]) {
          const parts = weightParts(weight, limit);
          const label = `${rows} x ${columns} ${dtype}, limit ${limit}`;
          let next = 0;
          for (const part of parts) {
            assertEquals(part.first, next, label);
            assert(part.rows >= 1 && part.rows * rowBytes <= limit, label);
            next += part.rows;
          }
          assertEquals(next, rows, label);
          assertEquals(parts.length, Math.ceil(rows / Math.floor(limit / rowBytes)), label);
        }
      }
    }
  }
});

Deno.test("weightParts() refuses a limit under one row, with the numbers", () => {
  assertThrows(
    () => weightParts({ name: "lm_head", rows: 3, columns: 100, dtype: "f32" }, 399),
    RangeError,
    "Weight lm_head has rows of 400 bytes, over this device's binding limit of 399 bytes",
  );
});

Deno.test("weightBytes() counts elements in their storage type", () => {
  const weight: Weight = { name: "w", rows: 3, columns: 5, dtype: "f16" };
  assertEquals([weightBytes(weight), weightBytes({ ...weight, dtype: "f32" })], [30, 60]);
  assertEquals(whole(weight), { weight, first: 0, rows: 3 });
});
