import { assertEquals, assertThrows } from "@std/assert";
import {
  type PyramidInferOptions,
  resolvePyramidInfer,
} from "../../../lib/transforms/kv_pruning/pyramid_infer_options.ts";

Deno.test("resolvePyramidInfer() takes the released settings by default", () => {
  assertEquals(resolvePyramidInfer(), {
    preset: "llama2-7b",
    recentRatio: 0.2,
    prefillDecay: 0.9,
    prefillDecayStrategy: "cosine",
    minContext: 64,
    sinks: 4,
    distanceWeight: 1.2,
    interval: 1,
    genDecay: 0.1,
    genDecayStrategy: "cosine",
    genCompress: 0.9,
    genBlock: 16,
    keep: undefined,
    cacheTokens: undefined,
    sameLayer: false,
    rowCap: undefined,
    startLayer: 0,
    perKvHead: false,
    caps: undefined,
  });
});

Deno.test("resolvePyramidInfer() differs by preset in decay and interval alone, and options go before it", () => {
  const released = {
    "llama2-13b": [0.8, 2],
    "llama3-8b": [0.9, 1],
    "llama2-70b": [0.9, 3],
    "llama3-70b": [0.9, 3],
  };
  for (const [name, [prefillDecay, interval]] of Object.entries(released)) {
    const preset = name as NonNullable<PyramidInferOptions["preset"]>;
    assertEquals(resolvePyramidInfer({ preset }), {
      ...resolvePyramidInfer(),
      preset,
      prefillDecay,
      interval,
    });
    assertEquals(resolvePyramidInfer({ preset, interval: 5 }).interval, 5);
  }
});

Deno.test("resolvePyramidInfer() refuses with the name, the range and the value", () => {
  const cases: [PyramidInferOptions, string][] = [
    [
      { preset: "llama4" as "llama3-8b" },
      'preset must be one of llama2-7b, llama2-13b, llama3-8b, llama2-70b, llama3-70b: received "llama4"',
    ],
    [{ recentRatio: 1 }, "recentRatio must be from 0 to below 1: received 1"],
    [{ recentRatio: -0.1 }, "recentRatio must be from 0 to below 1: received -0.1"],
    [{ recentRatio: NaN }, "recentRatio must be from 0 to below 1: received NaN"],
    [
      { recentRatio: 0.6, genBlock: 4 },
      "recentRatio must be at most 0.5 with a genBlock of 4, so that blocks close one by one: received 0.6",
    ],
    [{ prefillDecay: 1.5 }, "prefillDecay must be a number from 0 to 1: received 1.5"],
    [
      { prefillDecayStrategy: "geometric" as "cosine" },
      'prefillDecayStrategy must be one of cosine, constant, linear: received "geometric"',
    ],
    [{ minContext: -1 }, "minContext must be a whole number from 0: received -1"],
    [{ sinks: 1.5 }, "sinks must be a whole number from 0: received 1.5"],
    [{ distanceWeight: -1 }, "distanceWeight must be a number from 0 to 1000: received -1"],
    [{ interval: 0 }, "interval must be a whole number from 1: received 0"],
    [{ genDecay: 2 }, "genDecay must be a number from 0 to 1: received 2"],
    [
      { genDecayStrategy: "sine" as "cosine" },
      'genDecayStrategy must be one of cosine, constant, linear: received "sine"',
    ],
    [{ genCompress: -0.5 }, "genCompress must be a number from 0 to 1: received -0.5"],
    [{ genBlock: 3 }, "genBlock must be a whole number from 4 to 64: received 3"],
    [{ genBlock: 65 }, "genBlock must be a whole number from 4 to 64: received 65"],
    [{ keep: 0 }, "keep must be above 0 and at most 1, which keeps everything: received 0"],
    [{ keep: 1.2 }, "keep must be above 0 and at most 1, which keeps everything: received 1.2"],
    [{ cacheTokens: 0 }, "cacheTokens must be a whole number from 1: received 0"],
    [{ keep: 0.5, cacheTokens: 100 }, "keep and cacheTokens exclude each other: received 0.5 and 100"],
    [{ rowCap: 0 }, "rowCap must be a whole number from 1: received 0"],
    [{ startLayer: -1 }, "startLayer must be a whole number from 0: received -1"],
    [{ sameLayer: 1 as unknown as boolean }, "sameLayer must be true or false: received 1"],
    [{ perKvHead: "yes" as unknown as boolean }, "perKvHead must be true or false: received yes"],
  ];
  for (const [options, message] of cases) {
    const error = assertThrows(() => resolvePyramidInfer(options), RangeError);
    assertEquals((error as Error).message, message);
  }
});
