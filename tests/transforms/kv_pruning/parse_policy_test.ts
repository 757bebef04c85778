import { assert, assertEquals, assertThrows } from "@std/assert";
import { KV_POLICIES, parseKvPolicy } from "../../../lib/transforms/mod.ts";

Deno.test("parseKvPolicy() reads names, options and switches, and joins two by +", () => {
  const { name, options } = parseKvPolicy(
    "pyramid-infer:keep=0.45,same-layer,rowCap=3".replace("rowCap", "row-cap"),
  );
  assertEquals([name, options], ["pyramid-infer", { keep: 0.45, sameLayer: true, rowCap: 3 }]);
  assertEquals(parseKvPolicy("pyramid-infer:same-layer=false").options, { sameLayer: false });
  assertEquals(parseKvPolicy("snap-kv: pool=mean , window=8").options, { pool: "mean", window: 8 });
  const both = parseKvPolicy("snap-kv:keep=0.3+tova");
  assertEquals([both.name, both.options], ["snap-kv+tova", { prefill: { keep: 0.3 }, decode: {} }]);
  assertEquals(parseKvPolicy("ada-kv:base=pyramid-kv,beta=9,share=0.5").options, {
    beta: 9,
    share: 0.5,
    base: "pyramid-kv",
  });
});

Deno.test("parseKvPolicy() says what there is instead of what is wrong", () => {
  const cases: [string, string][] = [
    [
      "snapkv",
      'There is no policy "snapkv": did you mean snap-kv? The policies are pyramid-infer, fast-kv, snap-kv, ',
    ],
    ["xyz", 'There is no policy "xyz": The policies are pyramid-infer, '],
    ["", 'There is no policy "": '],
    ["constructor", 'There is no policy "constructor": '],
    ["tova:kep=1", 'There is no option of tova "kep": did you mean keep? Its options are keep, cache-tokens'],
    ["tova:", 'There is no option of tova "": '],
    ["pyramid-infer:sameLayer", 'There is no option of pyramid-infer "sameLayer": did you mean same-layer?'],
    ["tova:keep=0.5,keep=0.6", "tova is given keep twice: leave one out"],
    ["tova:keep=much", "keep must be above 0 and at most 1, which keeps everything: received much"],
    ["tova:keep", "keep must be above 0 and at most 1, which keeps everything: received nothing"],
    ["pyramid-infer:same-layer=maybe", "sameLayer must be true or false: received maybe"],
    ["snap-kv:pool=sum", 'pool must be one of max, mean: received "sum"'],
    ["ada-kv:base=tova", 'base must be one of snap-kv, pyramid-kv: received "tova"'],
    ["ada-kv:beta=3", "beta is an option of pyramid-kv: take that as the base, or leave beta out"],
    [
      "tova+tova+tova",
      "At most two policies go together, one for prompts and one for what follows: received tova+",
    ],
  ];
  for (const [text, message] of cases) assertThrows(() => parseKvPolicy(text), RangeError, message);
});

Deno.test("KV_POLICIES makes each policy under its own name, with options that it takes", () => {
  for (const [name, { summary, options, make }] of Object.entries(KV_POLICIES)) {
    assertEquals(make().name, name);
    assert(summary.length > 20 && summary.length <= 96 && !summary.endsWith("."));
    // An option that nobody reads would be taken without a word.
    for (const [option, type] of Object.entries(options)) {
      assertThrows(() => make({ [option]: typeof type === "string" ? "wrong" : "" }), RangeError, option);
    }
  }
});
