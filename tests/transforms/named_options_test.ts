import { assertEquals, assertThrows } from "@std/assert";
import { type OptionType, parseNamedOptions } from "../../mod.ts";

const OPTIONS: Record<string, OptionType> = {
  keep: "number",
  maxLength: "whole",
  perHead: "boolean",
  norm: ["rms", "layer"],
  layers: "text",
};
const parse = (text: string) =>
  parseNamedOptions(text, ["core", "cores"], { wide: { options: OPTIONS }, bare: { options: {} } });

for (
  const [text, name, options] of [
    ["bare", "bare", {}],
    ["wide:keep=-0.5", "wide", { keep: -0.5 }],
    ["wide:max-length=12,per-head", "wide", { maxLength: 12, perHead: true }],
    [" wide : per-head = false , layers = 0-2/5 ", "wide", { perHead: false, layers: "0-2/5" }],
    ["wide:norm=layer,keep=1e-3", "wide", { norm: "layer", keep: 0.001 }],
  ] as const
) {
  Deno.test(`parseNamedOptions() reads ${text}`, () => assertEquals<unknown>(parse(text), { name, options }));
}

for (
  const [text, message] of [
    ["wied", 'There is no core "wied": did you mean wide? The cores are wide, bare'],
    ["", 'There is no core "": The cores are wide, bare'],
    ["constructor", 'There is no core "constructor": The cores are wide, bare'],
    [
      "wide:kep=1",
      'There is no option of wide "kep": did you mean keep? Its options are keep, max-length, per-head',
    ],
    ["wide:perHead", 'There is no option of wide "perHead": did you mean per-head? Its options are'],
    ["wide:", 'There is no option of wide "": Its options are keep'],
    ["wide:keep=1,keep=1", "wide is given keep twice: leave one out"],
    ["wide:keep", "keep must be a number: received no value"],
    ["wide:keep=", 'keep must be a number: received ""'],
    ["wide:keep=NaN", 'keep must be a number: received "NaN"'],
    ["wide:max-length=x", 'max-length must be a whole number: received "x"'],
    ["wide:per-head=1", 'per-head must be true or false: received "1"'],
    ["wide:norm=rsm", 'norm must be one of rms, layer: received "rsm"'],
  ]
) {
  Deno.test(`parseNamedOptions() refuses ${JSON.stringify(text)}`, () => {
    assertThrows(() => parse(text), RangeError, message);
  });
}
