import { assert, assertEquals, assertThrows } from "@std/assert";
import { kvArenas } from "../../lib/ops/mod.ts";

Deno.test("kvArenas() puts every head in one arena, each arena within the limit, in as few arenas as possible", () => {
  for (const kvHeads of [1, 2, 3, 8, 13]) {
    for (const headSize of [8, 12, 128]) {
      for (const slots of [0, 1, 7, 1000]) {
        for (const dtype of ["f16", "f32"] as const) {
          const headBytes = slots * headSize * (dtype === "f16" ? 2 : 4);
          for (const most of [1, 2, 5, 100]) {
            const limit = Math.max(16, headBytes * most);
            const arenas = kvArenas({ kvHeads, headSize }, slots, dtype, limit);
            assertEquals(
              arenas.flatMap(({ firstHead, heads }) =>
                Array.from({ length: heads }, (_, i) => firstHead + i)
              ),
              Array.from({ length: kvHeads }, (_, i) => i),
            );
            for (const { heads } of arenas) assert(heads >= 1 && heads * headBytes <= limit);
            if (slots > 0) assertEquals(arenas.length, Math.ceil(kvHeads / Math.min(kvHeads, most)));
          }
        }
      }
    }
  }
});

Deno.test("kvArenas() says what to do when one head's slots are over the limit", () => {
  assertThrows(
    () => kvArenas({ kvHeads: 2, headSize: 8 }, 100, "f32", 3199),
    RangeError,
    "A KV cache of 100 slots takes 3200 bytes a head, over this device's binding limit of 3199: " +
      "use a shorter context, fewer sequences at once or f16",
  );
});
