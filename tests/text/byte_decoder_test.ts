import { assert, assertEquals } from "@std/assert";
import { createByteDecoder } from "../../lib/text/byte_decoder.ts";
import type { Component } from "../../lib/text/tokenizer_json.ts";

const replace = { type: "Replace", pattern: { String: "▁" }, content: " " };
const strip = { type: "Strip", content: " ", start: 1, stop: 0 };

/** The text of tokens, given as texts. */
function decode(decoder: Component | null, tokens: string[], added: string[] = []): string | undefined {
  const bytes = createByteDecoder(decoder, (id) => tokens[id], (id) => added.includes(tokens[id]));
  if (bytes === undefined) return undefined;
  const next = bytes.start();
  return new TextDecoder().decode(Uint8Array.from(tokens.flatMap((_, id) => [...next(id)])));
}

function sequence(...decoders: Component[]): Component {
  return { type: "Sequence", decoders };
}

Deno.test("createByteDecoder() reads the byte characters of byte-level BPE", () => {
  const decoder = { type: "ByteLevel" };
  assertEquals(decode(decoder, ["Ġhe", "llo", "Ċ", "Ã©", "ðŁĻĤ"]), " hello\né🙂");
  assertEquals(decode(sequence(decoder), ["Ġa"]), " a");
  // The 256 characters that stand for a byte, each for another one.
  const codes = Array.from({ length: 0x144 }, (_, code) => code);
  const characters = codes.filter((code) => code > 0x20 && (code < 0x7f || code > 0xa0) && code !== 0xad);
  const bytes = createByteDecoder(decoder, (id) => String.fromCharCode(characters[id]), () => false)!;
  const values = characters.map((_, id) => [...bytes.bytes(id)]);
  assertEquals(values.flat().toSorted((a, b) => a - b), codes.slice(0, 256));
});

Deno.test("createByteDecoder() takes an added token's text, and text in other characters, as it is", () => {
  assertEquals(decode({ type: "ByteLevel" }, ["Ġ", "Ġ", "<｜é｜>"], ["<｜é｜>"]), "  <｜é｜>");
  assertEquals(decode({ type: "ByteLevel" }, ["é"], ["é"]), "é");
  assertEquals(decode({ type: "ByteLevel" }, ["two words▁"]), "two words▁");
});

Deno.test("createByteDecoder() reads ▁ and byte tokens, and takes one space off the text's beginning", () => {
  const llama = sequence(replace, { type: "ByteFallback" }, { type: "Fuse" }, strip);
  assertEquals(decode(llama, ["▁a", "▁b", "<0x0A>", "<0xE2>", "<0x82>", "<0xAC>"]), "a b\n€");
  assertEquals(decode(llama, ["▁▁", "▁a"]), "  a");
  assertEquals(decode(llama, ["a", "▁b"]), "a b");
  // A token without text leaves the beginning where it is, and a space given as a byte is a space.
  assertEquals(decode(llama, ["", "▁a"]), "a");
  assertEquals(decode(llama, ["<0x20>", "▁a"]), " a");
  assertEquals(decode(llama, ["<0x4g>", "<0x041>"]), "<0x4g><0x041>");
  const gemma = sequence(replace, { type: "ByteFallback" }, { type: "Fuse" });
  assertEquals(decode(gemma, ["▁a", "<0x41>"]), " aA");
  // Without the step there are no byte tokens.
  assertEquals(decode(sequence(replace, { type: "Fuse" }), ["▁a", "<0x41>"]), " a<0x41>");
});

Deno.test("createByteDecoder() leaves the prepended ▁ out of the first token alone", () => {
  assertEquals(decode({ type: "Metaspace", replacement: "▁" }, ["▁a", "▁b"]), "a b");
  assertEquals(decode({ type: "Metaspace", replacement: "_", prepend_scheme: "first" }, ["_a", "_b"]), "a b");
  assertEquals(
    decode({ type: "Metaspace", replacement: "▁", prepend_scheme: "never" }, ["▁a", "▁b"]),
    " a b",
  );
  assertEquals(
    decode({ type: "Metaspace", replacement: "▁", add_prefix_space: false }, ["▁a", "▁b"]),
    " a b",
  );
});

Deno.test("createByteDecoder() gives undefined where a token's text hangs on its neighbours", () => {
  for (
    const decoder of [
      null,
      { type: "WordPiece", prefix: "##" },
      { type: "BPEDecoder", suffix: "</w>" },
      { type: "CTC" },
      sequence({ type: "Fuse" }, replace),
      sequence(replace, strip),
      sequence({ type: "Fuse" }, { ...strip, stop: 1 }),
      sequence({ type: "Replace", pattern: { Regex: "▁+" }, content: " " }, { type: "Fuse" }),
      sequence({ type: "ByteLevel" }, strip),
    ]
  ) {
    assertEquals(decode(decoder, ["a"]), undefined, JSON.stringify(decoder));
  }
});

Deno.test("createByteDecoder() gives no bytes for ids without a token", () => {
  const decoder = createByteDecoder({ type: "ByteLevel" }, () => undefined, () => false)!;
  assertEquals(decoder.bytes(7).length, 0);
  assert(decoder.start()(7).length === 0);
});
