import { assertEquals } from "@std/assert";
import {
  chatmlTokenizer,
  endOfWordJson,
  llamaJson,
  novelTokenizer,
  tokenizerOf,
  unigramJson,
} from "./fixtures.ts";

const plain = { specialTokens: false } as const;

Deno.test("encode() with specialTokens false reads special tokens as text", () => {
  // Ids by tokenizers 0.23.2 in Rust, with encode_special_tokens.
  const novel = novelTokenizer();
  const ids = novel.encode("x<|endoftext|>y", plain);
  assertEquals(ids.includes(0), false);
  assertEquals(novel.decode(ids), "x<|endoftext|>y");
  const llama = tokenizerOf(llamaJson);
  assertEquals(llama.encode("ab<s> ab", plain), [1, 265, 63, 118, 65, 265]);
  assertEquals(llama.encode("<s>ab</s>", plain), [1, 259, 63, 118, 65, 264, 63, 50, 118, 65]);
});

Deno.test("encode() with specialTokens false changes nothing in text without special tokens", () => {
  const novel = novelTokenizer();
  for (const text of ["", " Mary  said\n", "🙂 <|endoftext", "héllo"]) {
    assertEquals(novel.encode(text, plain), novel.encode(text));
  }
});

Deno.test("encode() with specialTokens false keeps added tokens that are not special", () => {
  const added = [
    { id: 4096, content: "<table>", special: false, normalized: false },
    { id: 4097, content: "    ", special: false, normalized: true },
  ];
  assertEquals(novelTokenizer(added).encode("<table>    <|endoftext|>", plain).slice(0, 2), [4096, 4097]);
});

Deno.test("encode() with specialTokens false never gives a special id, where the vocabulary itself lists it", () => {
  const unigram = tokenizerOf(unigramJson);
  assertEquals(unigram.encode("<s>ab"), [1, 8]);
  const ids = unigram.encode("<s>ab", plain);
  assertEquals(ids.includes(1), false);
  assertEquals(unigram.decode(ids), "<s>ab");
  // The token for unknown text is the vocabulary's own answer.
  assertEquals(unigram.encode("ax", plain), [6, 0]);
  assertEquals(tokenizerOf(endOfWordJson).encode("a z", plain), [3, 0]);
});

Deno.test("encode() with specialTokens false reads text as text that normalising makes a special token's", () => {
  const tokenizer = tokenizerOf({
    ...llamaJson,
    normalizer: { type: "Lowercase" },
    added_tokens: [{ id: 2, content: "</s>", special: true, normalized: true }],
  }, { add_bos_token: false });
  assertEquals(tokenizer.encode("b</S>"), [261, 2]);
  assertEquals(tokenizer.encode("b</S>", plain).includes(2), false);
});

Deno.test("encode() with a filter decides for each place", () => {
  const tokenizer = chatmlTokenizer();
  const text = "<|im_end|>a<|im_end|>b<|im_end|>";
  const asked: [number, number, number][] = [];
  const ids = tokenizer.encode(text, {
    specialTokens(id, start, end) {
      asked.push([id, start, end]);
      return start !== 11;
    },
  });
  assertEquals(asked, [[4097, 0, 10], [4097, 11, 21], [4097, 22, 32]]);
  assertEquals(ids.filter((id) => id === 4097).length, 2);
  assertEquals([ids.at(0), ids.at(-1)], [4097, 4097]);
  assertEquals(tokenizer.decode(ids), text);
});

Deno.test("encode() with a filter that accepts all is encode()", () => {
  const texts = ["<|im_start|>user\nHi there<|im_end|>\n", "no special token", "<|im_start|><|endoftext|>"];
  const tokenizer = chatmlTokenizer();
  for (const text of texts) {
    assertEquals(tokenizer.encode(text, { specialTokens: () => true }), tokenizer.encode(text));
  }
  const llama = tokenizerOf(llamaJson);
  for (const text of ["<s> ab</s>", "ab<s>  ab", ""]) {
    assertEquals(llama.encode(text, { specialTokens: () => true }), llama.encode(text));
  }
});

Deno.test("encode() with a filter finds a token that begins inside a refused one", () => {
  const tokenizer = novelTokenizer([
    { id: 4096, content: "<a><b>", special: true, normalized: false },
    { id: 4097, content: "<b>", special: true, normalized: false },
  ]);
  assertEquals(tokenizer.encode("<a><b>"), [4096]);
  const ids = tokenizer.encode("<a><b>", { specialTokens: (id) => id === 4097 });
  assertEquals(ids.at(-1), 4097);
  assertEquals(tokenizer.decode(ids), "<a><b>");
});

Deno.test("encode() with a filter takes the longest token", () => {
  const tokenizer = novelTokenizer([
    { id: 4096, content: "<a>", special: true, normalized: false },
    { id: 4097, content: "<a><b>", special: true, normalized: false },
  ]);
  assertEquals(tokenizer.encode("<a><b>", { specialTokens: () => true }), [4097]);
});

Deno.test("encode() with a filter finds an accepted token also where normalising hides it", () => {
  // ▁ is set before the text and before the token's name alike, which then stands at the beginning only.
  const added = [{ id: 2, content: "</s>", special: true, normalized: true }];
  const tokenizer = tokenizerOf({ ...llamaJson, added_tokens: added });
  assertEquals(tokenizer.encode("b</s>").includes(2), false);
  assertEquals(tokenizer.encode("b</s>", { specialTokens: () => true }), [1, 259, 261, 2]);
});

Deno.test("encode() with a filter keeps what tokens do to the white space around them", () => {
  const tokenizer = novelTokenizer([
    { id: 4096, content: "<|end|>", special: true, normalized: false, lstrip: true, rstrip: true },
  ]);
  const text = "a <|end|> b <|end|> c";
  assertEquals(tokenizer.encode(text), [65, 4096, 66, 4096, 67]);
  const ids = tokenizer.encode(text, { specialTokens: (_, start) => start < 5 });
  assertEquals(ids.slice(0, 3), [65, 4096, 66]);
  assertEquals(tokenizer.decode(ids), "a<|end|>b <|end|> c");
});

Deno.test("encode() with a filter cannot be tricked with private-use characters", () => {
  const tokenizer = chatmlTokenizer();
  // What the accepted token would be renamed to, were the character not looked for in the text.
  for (const typed of ["\ue0004097\ue000", "\ue000\ue001\ue0024097\ue002", "\ue000"]) {
    const text = `${typed}<|im_end|><|im_end|>`;
    const ids = tokenizer.encode(text, { specialTokens: (_, start) => start === typed.length });
    assertEquals(ids.filter((id) => id > 4095), [4097], JSON.stringify(typed));
    assertEquals(tokenizer.decode(ids), text);
  }
});
