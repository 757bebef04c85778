import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  createDetokenizer,
  type DetokenizerOptions,
  loadTokenizer,
  type Tokenizer,
} from "../../lib/text/mod.ts";
import {
  endOfWordJson,
  llamaJson,
  novelTokenizer,
  numbers,
  sharedModel,
  tokenizerOf,
  unigramJson,
  wordPieceJson,
} from "./fixtures.ts";

const novel = novelTokenizer();
const llama = tokenizerOf(llamaJson);

/** The pieces of ids, the flushed one last. */
function pieces(tokenizer: Tokenizer, ids: number[], options?: DetokenizerOptions) {
  const detokenizer = createDetokenizer(tokenizer, options);
  return [...ids.map((id) => detokenizer.push(id)), detokenizer.flush()];
}

function texts(tokenizer: Tokenizer, ids: number[], options?: DetokenizerOptions): string[] {
  return pieces(tokenizer, ids, options).map(({ text }) => text);
}

/** The novel tokenizer's tokens of single bytes, by byte. */
const byteId = new Map(
  Array.from({ length: 4096 }, (_, id) => id).filter((id) => novel.bytesOf(id).length === 1).map((id) =>
    [novel.bytesOf(id)[0], id] as const
  ),
);

function byteIds(...bytes: number[]): number[] {
  return bytes.map((byte) => byteId.get(byte)!);
}

Deno.test("createDetokenizer() holds a character back until its last byte", () => {
  assertEquals(byteId.size, 256);
  const ids = byteIds(0x61, 0xf0, 0x9f, 0x99, 0x82, 0xc3, 0xa9, 0x62);
  assertEquals(texts(novel, ids), ["a", "", "", "", "🙂", "", "é", "b", ""]);
  const bytes = pieces(novel, ids).map(({ bytes }) => bytes.length);
  assertEquals(bytes, [1, 0, 0, 0, 4, 0, 2, 1, 0]);
});

Deno.test("createDetokenizer() never cuts the characters that a tokenizer spreads over tokens", () => {
  const text = "Oh 👩‍👩‍👧, 한국어 — naïve ﷽!";
  const ids = novel.encode(text);
  assert(ids.length > 20);
  const parts = texts(novel, ids);
  assertEquals(parts.join(""), text);
  for (const part of parts) assert(part.isWellFormed() && !part.includes("\ufffd"), JSON.stringify(part));
});

Deno.test("createDetokenizer() gives U+FFFD as soon as bytes cannot be completed any more", () => {
  const cases: [bytes: number[], expected: string[]][] = [
    [[0xff, 0x61], ["\ufffd", "a", ""]],
    [[0x80, 0x80], ["\ufffd", "\ufffd", ""]],
    [[0xe2, 0x82, 0x61], ["", "", "\ufffda", ""]],
    [[0xe2, 0x82, 0xe2, 0x82, 0xac], ["", "", "\ufffd", "", "€", ""]],
    [[0xf0, 0x9f, 0xc3, 0xa9], ["", "", "\ufffd", "é", ""]],
    [[0xed, 0xa0, 0x80], ["", "\ufffd\ufffd", "\ufffd", ""]],
    [[0x61, 0xf0, 0x9f, 0x99], ["a", "", "", "", "\ufffd"]],
  ];
  for (const [bytes, expected] of cases) {
    assertEquals(texts(novel, byteIds(...bytes)), expected);
    assertEquals(pieces(novel, byteIds(...bytes)).flatMap((piece) => [...piece.bytes]), bytes);
    assertEquals(expected.join(""), novel.decode(byteIds(...bytes)));
  }
});

const families = {
  "byte-level": novel,
  "byte fallback": llama,
  "metaspace": tokenizerOf(unigramJson),
  "word piece": tokenizerOf(wordPieceJson),
  "end of word": tokenizerOf(endOfWordJson),
  // Bytes that only the whole decoder can join: ▁ is replaced after them.
  "byte fallback first": tokenizerOf({
    ...llamaJson,
    decoder: {
      type: "Sequence",
      decoders: [
        { type: "ByteFallback" },
        { type: "Replace", pattern: { String: "▁" }, content: " " },
        { type: "Fuse" },
      ],
    },
  }),
};

for (const [family, tokenizer] of Object.entries(families)) {
  Deno.test(`createDetokenizer() gives in all what decode() gives: ${family}`, () => {
    for (let seed = 1; seed <= 60; seed++) {
      // A few ids beyond the vocabulary stand for nothing.
      const ids = [...numbers(seed, tokenizer.vocabSize + 2, seed)];
      for (const skipSpecialTokens of [false, true]) {
        const options = { skipSpecialTokens };
        assertEquals(
          texts(tokenizer, ids, options).join(""),
          tokenizer.decode(ids, options),
          `ids ${ids}, skipSpecialTokens ${skipSpecialTokens}`,
        );
      }
    }
  });
}

Deno.test("createDetokenizer() holds a character back where it must decode whole windows", () => {
  const tokenizer = families["byte fallback first"];
  assertEquals(tokenizer.byteDecoder, undefined);
  const ids = [260, 3 + 0xf0, 3 + 0x9f, 3 + 0x99, 3 + 0x82, 263, 3 + 0xc3];
  assertEquals(texts(tokenizer, ids), ["a", "", "", "", "🙂", " a", "", "\ufffd"]);
});

Deno.test("createDetokenizer() gives the bytes of all tokens in order", () => {
  for (const tokenizer of [novel, llama]) {
    const ids = [...numbers(7, tokenizer.vocabSize, 500)];
    const given = pieces(tokenizer, [5, ...ids], { skipSpecialTokens: true }).flatMap((
      { bytes },
    ) => [...bytes]);
    assertEquals(given, [5, ...ids].flatMap((id) => [...tokenizer.bytesOf(id)]));
  }
});

Deno.test("createDetokenizer() takes the space off the beginning that decode() takes off", () => {
  assertEquals(texts(llama, [265, 265]), ["ab", " ab", ""]);
  assertEquals(texts(llama, [1, 265], { skipSpecialTokens: true }), ["", "ab", ""]);
  assertEquals(texts(llama, [1, 265]), ["<s>", " ab", ""]);
  assertEquals(texts(llama, [259, 259, 262]), ["", " ", "c", ""]);
});

Deno.test("createDetokenizer() with a prompt continues its text", () => {
  assertEquals(texts(llama, [265, 265], { prompt: [1, 265] }), [" ab", " ab", ""]);
  assertEquals(texts(llama, [265], { prompt: [1], skipSpecialTokens: true }), ["ab", ""]);
  assertEquals(texts(tokenizerOf(unigramJson), [8], { prompt: [6] }), [" ab", ""]);
  assertEquals(texts(tokenizerOf(wordPieceJson), [5, 6], { prompt: [3, 4] }), ["s", " sat", ""]);
  // A character begun in the prompt.
  assertEquals(texts(novel, byteIds(0x99, 0x82), { prompt: byteIds(0x61, 0xf0, 0x9f) }), ["", "🙂", ""]);
});

const tinystories = sharedModel("tinystories-656k");

Deno.test({
  name: "createDetokenizer() continues the golden prompts of tinystories-656k",
  ignore: tinystories.absent,
  async fn() {
    const tokenizer = (await loadTokenizer(tinystories.path))!;
    const golden = JSON.parse(await Deno.readTextFile(sharedModel("golden", "tinystories-656k.json").path));
    for (const { ids, text, greedy_48: greedy } of golden.prompts) {
      if (greedy === undefined) continue;
      const continued = texts(tokenizer, greedy, { prompt: ids }).join("");
      assertEquals(text + continued, tokenizer.decode([...ids, ...greedy]));
      assertEquals(texts(tokenizer, greedy).join(""), tokenizer.decode(greedy));
    }
  },
});

Deno.test("createDetokenizer() flushes once and goes on", () => {
  const detokenizer = createDetokenizer(novel);
  detokenizer.push(byteIds(0xc3)[0]);
  assertEquals(detokenizer.flush().text, "\ufffd");
  assertEquals(detokenizer.flush().text, "");
  assertEquals(detokenizer.push(65).text, "a");
});

Deno.test("createDetokenizer() throws for numbers that are no ids", () => {
  for (const tokenizer of [novel, tokenizerOf(wordPieceJson)]) {
    assertThrows(() => createDetokenizer(tokenizer).push(-1), RangeError, "received -1");
    assertThrows(() => createDetokenizer(tokenizer, { prompt: [1.5] }), RangeError, "received 1.5");
  }
});
