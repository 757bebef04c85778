// Laws of every core of linear attention, through the shipped kernels: the quadratic definition, the recurrent form and the
// chunked one are the same; so are a sequence in one pass and one that is split anywhere.

import { assert, assertEquals } from "@std/assert";
import { attend } from "../../mod.ts";
import type { Rotary } from "../../lib/layers/mod.ts";
import { randomArray, sharedGpu } from "../harness/kernel_case.ts";
import type { CoreRows, Rows } from "../oracles/linear_cores.ts";
import { LINEAR_CORE_CASES, type LinearCoreCase, SHAPE, THETAS } from "./linear_core_cases.ts";

const { heads, kvHeads, headSize } = SHAPE;
const ROTARY: Rotary = {
  name: "laws",
  layout: "interleaved",
  size: headSize,
  frequencies: THETAS,
  positions: 600,
};
/** Longest of all; shorter ones are its beginnings, since all cores are causal. */
const LONGEST = 500;
const LENGTHS = [1, 63, 64, 65, 257, LONGEST];

function inputsOf({ extra }: LinearCoreCase, tokens: number): Record<string, Float32Array> {
  const widths = { query: heads * headSize, key: kvHeads * headSize, value: kvHeads * headSize, ...extra };
  return Object.fromEntries(
    Object.entries(widths).map(([name, width], i) => [name, randomArray(tokens * width, 71 + i, 1.5)]),
  );
}

function rowsOf(data: Float32Array | undefined, tokens: number): Rows | undefined {
  if (!data) return undefined;
  const width = data.length / tokens;
  return Array.from(
    { length: tokens },
    (_, i) => Float64Array.from(data.subarray(i * width, (i + 1) * width)),
  );
}

/** Largest error of a row, as a share of the row's largest value. */
function worst(got: Float32Array, want: Rows): number {
  const width = got.length / want.length;
  return Math.max(
    ...want.map((row, i) => {
      const most = row.reduce((a, x) => Math.max(a, Math.abs(x)), 0);
      const error = row.reduce((a, x, c) => Math.max(a, Math.abs(got[i * width + c] - x)), 0);
      return most === 0 ? error : error / most;
    }),
  );
}

const gpu = await sharedGpu();

for (const one of LINEAR_CORE_CASES) {
  Deno.test(`${one.name} is one thing in quadratic, recurrent and chunked form, and when it is split`, async () => {
    const all = inputsOf(one, LONGEST);
    const { query, key, value, ...extra } = all;
    const rows = Object.fromEntries(
      Object.entries({ q: query, k: key, v: value, ...extra }).map((
        [name, data],
      ) => [name, rowsOf(data, LONGEST)]),
    ) as unknown as CoreRows;
    const want = one.definition(rows);
    for (const tokens of LENGTHS) {
      const inputs = Object.fromEntries(
        Object.entries(all).map(([name, data]) => [name, data.subarray(0, data.length / LONGEST * tokens)]),
      ) as unknown as Parameters<typeof attend>[2];
      const options = { ...SHAPE, rotary: ROTARY };
      // Steps of up to 32 rows go token by token, longer ones in chunks; 100 is no multiple of a chunk.
      const ways = tokens === LONGEST ? [undefined, 16, 100] : tokens === 1 ? [undefined] : [undefined, 32];
      for (const sliceRows of ways) {
        const got = await attend(
          gpu,
          one.core,
          inputs,
          sliceRows === undefined ? options : { ...options, sliceRows },
        );
        assertEquals(got.length, tokens * heads * headSize);
        const error = worst(got, want.slice(0, tokens));
        assert(
          error < 1e-4,
          `${tokens} tokens in steps of ${sliceRows ?? "any"}: error ${error} of a row's largest`,
        );
      }
    }
  });
}
