import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { join } from "@std/path";
import { loadTokenizer, type Tokenizer } from "../../lib/text/mod.ts";
import {
  endOfWordJson,
  llamaJson,
  novelDir,
  novelTokenizer,
  setBefore,
  sharedModel,
  tokenizerJson,
  tokenizerOf,
  unigramJson,
  wordPieceJson,
} from "./fixtures.ts";

/** A folder with files, for one test. */
async function withFiles(
  files: Record<string, string>,
  body: (dir: string) => Promise<void>,
): Promise<void> {
  const dir = await Deno.makeTempDir();
  try {
    for (const [name, text] of Object.entries(files)) await Deno.writeTextFile(join(dir, name), text);
    await body(dir);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}

const novel = (await loadTokenizer(novelDir))!;

Deno.test("loadTokenizer() reads a folder's tokenizer", () => {
  assertEquals(novel.vocabSize, 4096);
  assertEquals(novel.bosId, 0);
  assertEquals(novel.eosIds, [0]);
  assertEquals([...novel.specialIds], [0]);
  assertEquals([...novel.addedTokens], [["<|endoftext|>", 0]]);
  assertEquals(novel.chatTemplate, undefined);
});

// Ids by tokenizers 0.23.2 in Rust.
const rustIds: [text: string, ids: number[]][] = [
  ["Hello world", [40, 500, 79, 854]],
  [" Hello", [478, 287, 79]],
  ["a  b", [65, 221, 271]],
  ["héllo 🙂\n", [72, 2372, 287, 79, 221, 173, 254, 248, 225, 199]],
  ["<|endoftext|> Hello", [0, 478, 287, 79]],
  ["x<|endoftext|>y", [88, 0, 89]],
  ["<unk>", [28, 3354, 30]],
  ["", []],
];

Deno.test("encode() gives the ids of the Rust library, and decode() the text back", () => {
  for (const [text, ids] of rustIds) {
    assertEquals(novel.encode(text), ids, text);
    assertEquals(novel.decode(ids), text, text);
  }
});

Deno.test("decode() and encode() are inverse over text of every kind", () => {
  const texts = [
    "\ufeffbyte order mark",
    "tabs\tand\r\nlines \n\n\n",
    "👩‍👩‍👧‍👦 ﷽ \u0301 z̀ 한국어 العربية",
    "don't I'LL  ...  'quoted' , spaced , out .",
    "\u0000\u0001\u007f\u0080\u00a0\u00ad",
    "<|endoftext|><|endoftext|>",
  ];
  for (const text of texts) {
    assertEquals(novel.decode(novel.encode(text)), text);
    assertEquals(novel.decode(novel.encode(text, { specialTokens: false })), text);
  }
});

/** The parts of the golden files that are about text. */
interface Golden {
  prompts: { ids: number[]; text: string; greedy_48?: number[]; greedy_text?: string }[];
}

for (
  const name of [
    "novel-llama",
    "novel-softmax",
    "novel-linear",
    "novel-t1",
    "novel-transnormer",
    "novel-tnllm",
    "tinystories-656k",
  ]
) {
  const { path, absent } = sharedModel(name);
  Deno.test({
    name: `encode() and decode() agree with the golden prompts of ${name}`,
    ignore: absent,
    async fn() {
      const tokenizer = (await loadTokenizer(path))!;
      const golden: Golden = JSON.parse(await Deno.readTextFile(sharedModel("golden", `${name}.json`).path));
      assert(golden.prompts.length > 0);
      for (const { ids, text, greedy_48: greedy, greedy_text: greedyText } of golden.prompts) {
        assertEquals(tokenizer.decode(ids), text);
        assertEquals(tokenizer.encode(text), ids);
        if (greedy !== undefined) assertEquals(tokenizer.decode(greedy), greedyText);
      }
    },
  });
}

const tinystories = sharedModel("tinystories-656k");

Deno.test({
  name: "encode() and decode() are inverse for tinystories-656k, whose spaces are ▁",
  ignore: tinystories.absent,
  async fn() {
    const tokenizer = (await loadTokenizer(tinystories.path))!;
    assertEquals([tokenizer.bosId, tokenizer.eosIds, tokenizer.vocabSize], [1, [2], 2048]);
    for (const text of ["Once upon a time", " two  spaces ", 'She said, "No!"\nAnd ran.']) {
      const ids = tokenizer.encode(text);
      assertEquals(ids[0], 1);
      assertEquals(tokenizer.decode(ids, { skipSpecialTokens: true }), text);
      assertEquals(tokenizer.decode(ids.slice(1)), text);
    }
  },
});

Deno.test({
  name: "loadTokenizer() gives undefined for stories260k, which has no tokenizer.json",
  ignore: sharedModel("stories260k").absent,
  async fn() {
    assertEquals(await loadTokenizer(sharedModel("stories260k").path), undefined);
  },
});

Deno.test("encode() sets BOS as the post-processor says", () => {
  const tokenizer = tokenizerOf(llamaJson);
  assertEquals(tokenizer.bosId, 1);
  assertEquals(tokenizer.encode("ab"), [1, 265]);
  assertEquals(tokenizer.encode(""), [1]);
  const sequence = { type: "Sequence", processors: [{ type: "ByteLevel" }, setBefore("<s>", 1)] };
  assertEquals(tokenizerOf({ ...llamaJson, post_processor: sequence }).encode("ab"), [1, 265]);
  assertEquals(tokenizerOf({ ...llamaJson, post_processor: null }).encode("ab"), [265]);
});

Deno.test("encode() sets BOS as add_bos_token says, over the post-processor", () => {
  const names = { bos_token: "<s>" };
  assertEquals(tokenizerOf(llamaJson, { ...names, add_bos_token: false }).encode("ab"), [265]);
  const bare = { ...llamaJson, post_processor: null };
  assertEquals(tokenizerOf(bare, { ...names, add_bos_token: true }).encode("ab"), [1, 265]);
  assertEquals(tokenizerOf(bare, names).encode("ab"), [265]);
  assertEquals(novel.encode("a"), [65]);
});

Deno.test("encode() follows the option bos over both", () => {
  assertEquals(novel.encode("a", { bos: true }), [0, 65]);
  assertEquals(tokenizerOf(llamaJson).encode("ab", { bos: false }), [265]);
  const silent = tokenizerOf(llamaJson, { bos_token: "<s>", add_bos_token: false });
  assertEquals(silent.encode("ab", { bos: true }), [1, 265]);
});

Deno.test("encode() sets no second BOS", () => {
  const tokenizer = tokenizerOf(llamaJson);
  assertEquals(tokenizer.encode("<s>ab"), [1, 265]);
  assertEquals(tokenizer.encode("<s>ab", { bos: true }), [1, 265]);
  assertEquals(novel.encode("<|endoftext|>a", { bos: true }), [0, 65]);
  // Typed as text it is none.
  assertEquals(tokenizer.encode("<s>b", { specialTokens: false })[0], 1);
  assertEquals(tokenizer.decode(tokenizer.encode("<s>b", { specialTokens: false })), "<s> <s>b");
});

Deno.test("encode() sets what stands before the text alone, and no end", () => {
  assertEquals(tokenizerOf(wordPieceJson).encode("the cat"), [1, 3, 4]);
});

Deno.test("encode() throws when BOS is asked for and there is none", () => {
  const tokenizer = tokenizerOf(endOfWordJson);
  assertEquals(tokenizer.bosId, undefined);
  assertThrows(() => tokenizer.encode("a", { bos: true }), Error, "This tokenizer has no BOS token");
});

Deno.test("decode() leaves special tokens out when asked to", () => {
  assertEquals(novel.decode([0, 40, 500, 79, 0]), "<|endoftext|>Hello<|endoftext|>");
  assertEquals(novel.decode([0, 40, 500, 79, 0], { skipSpecialTokens: true }), "Hello");
  const llama = tokenizerOf(llamaJson);
  assertEquals(llama.decode([1, 265, 2]), "<s> ab</s>");
  assertEquals(llama.decode([1, 265, 2], { skipSpecialTokens: true }), "ab");
  assertEquals(tokenizerOf(wordPieceJson).decode([1, 3, 4, 5, 2], { skipSpecialTokens: true }), "the cats");
});

Deno.test("decode() gives no text for no ids, and none for ids without a token", () => {
  for (const json of [llamaJson, wordPieceJson]) {
    const tokenizer = tokenizerOf(json);
    assertEquals(tokenizer.decode([]), "");
    assertEquals(tokenizer.decode([99_999]), "");
    assertEquals(tokenizer.decode([3, 99_999]), tokenizer.decode([3]));
  }
});

Deno.test("decode() throws for numbers that are no ids", () => {
  for (const id of [-1, 0.5, NaN]) {
    assertThrows(() => novel.decode([0, id]), RangeError, `received ${id}`);
    assertThrows(() => novel.bytesOf(id), RangeError, `received ${id}`);
  }
});

Deno.test("decode() never tidies white space up", () => {
  const tokenizer = novelTokenizer([], { clean_up_tokenization_spaces: true });
  assertEquals(tokenizer.decode(tokenizer.encode("do n't , you ?")), "do n't , you ?");
});

Deno.test("bytesOf() gives a token's raw bytes", () => {
  const bytes = (tokenizer: Tokenizer, text: string) =>
    tokenizer.encode(text, { bos: false }).flatMap((id) => [...tokenizer.bytesOf(id)]);
  const text = " a 🙂é\n";
  const expected = [...new TextEncoder().encode(text)];
  assertEquals(bytes(novel, text), expected);
  assertEquals(bytes(tokenizerOf(llamaJson), text), [0x20, ...expected]);
  assertEquals([...novel.bytesOf(173)], [0xf0]);
});

Deno.test("bytesOf() gives an added token's text, which is not written in byte characters", () => {
  const tokenizer = novelTokenizer([{ id: 4096, content: "é", special: false, normalized: false }]);
  assertEquals([...tokenizer.bytesOf(4096)], [0xc3, 0xa9]);
  assertEquals(tokenizer.decode(tokenizer.encode("café")), "café");
});

Deno.test("bytesOf() gives none for special tokens and for ids without a token", () => {
  assertEquals(novel.bytesOf(0).length, 0);
  assertEquals(novel.bytesOf(4096).length, 0);
  assertEquals(tokenizerOf(wordPieceJson).bytesOf(1).length, 0);
  assertEquals([...tokenizerOf(wordPieceJson).bytesOf(4)], [...new TextEncoder().encode("cat")]);
});

Deno.test("bytesOf() gives a copy that can be written to", () => {
  novel.bytesOf(65).fill(0);
  assertEquals(novel.decode([65]), "a");
});

Deno.test("loadTokenizer() gives undefined without a tokenizer.json", async () => {
  await withFiles({ "tokenizer_config.json": "{}" }, async (dir) => {
    assertEquals(await loadTokenizer(dir), undefined);
    assertEquals(await loadTokenizer(join(dir, "absent")), undefined);
  });
});

Deno.test("loadTokenizer() needs no tokenizer_config.json", async () => {
  await withFiles({ "tokenizer.json": JSON.stringify(llamaJson) }, async (dir) => {
    const tokenizer = (await loadTokenizer(dir))!;
    assertEquals(tokenizer.encode("ab"), [1, 265]);
    assertEquals(tokenizer.eosIds, []);
    assertEquals([...tokenizer.specialIds], [0, 1, 2]);
  });
});

Deno.test("loadTokenizer() reads special_tokens_map.json under tokenizer_config.json", async () => {
  const files = {
    "tokenizer.json": JSON.stringify(llamaJson),
    "special_tokens_map.json": JSON.stringify({ eos_token: { content: "</s>" }, bos_token: "a" }),
    "tokenizer_config.json": JSON.stringify({ bos_token: { __type: "AddedToken", content: "<s>" } }),
  };
  await withFiles(files, async (dir) => {
    const tokenizer = (await loadTokenizer(dir))!;
    assertEquals([tokenizer.bosId, tokenizer.eosIds], [1, [2]]);
    assertEquals(tokenizer.namedTokens, { bos_token: "<s>", eos_token: "</s>" });
  });
});

Deno.test("loadTokenizer() names the file that is broken", async () => {
  const whole = JSON.stringify(llamaJson);
  for (
    const [name, text, type, message] of [
      ["tokenizer.json", whole.slice(0, -9), SyntaxError, "is not valid JSON"],
      ["tokenizer.json", "[1]", TypeError, "must hold a JSON object"],
      ["tokenizer.json", "{}", TypeError, 'has no "model"'],
      ["tokenizer.json", '{"model": {}, "added_tokens": 5}', TypeError, '"added_tokens"'],
      ["tokenizer.json", '{"model": {"type": "Mystery"}}', Error, "Unknown TokenizerModel type"],
      ["tokenizer.json", '{"model": {"type": "BPE", "vocab": {}}}', Error, "is not supported"],
      ["tokenizer_config.json", "{,}", SyntaxError, "is not valid JSON"],
      ["special_tokens_map.json", "7", TypeError, "must hold a JSON object"],
      ["tokenizer_config.json", '{"chat_template": 7}', TypeError, "chat_template"],
    ] as const
  ) {
    await withFiles({ "tokenizer.json": whole, [name]: text }, async (dir) => {
      const error = await assertRejects(() => loadTokenizer(dir), type, message);
      assert((error as Error).message.includes(name), `${name}: ${(error as Error).message}`);
    });
  }
});

Deno.test("loadTokenizer() names the part that is not supported", async () => {
  for (
    const part of [
      { decoder: { type: "Mystery" } },
      { normalizer: { type: "Nmt" } },
      { pre_tokenizer: { type: "UnicodeScripts" } },
      { post_processor: { type: "Mystery" } },
    ]
  ) {
    await withFiles({ "tokenizer.json": JSON.stringify({ ...llamaJson, ...part }) }, async (dir) => {
      const error = await assertRejects(() => loadTokenizer(dir), Error, "is not supported");
      assert((error as Error).message.includes(Object.values(part)[0].type), (error as Error).message);
      assert((error as Error).message.includes(join(dir, "tokenizer.json")));
    });
  }
});

Deno.test("loadTokenizer() takes the chat template from the config, its list, or the file above both", async () => {
  const files = (config: unknown) => ({
    "tokenizer.json": JSON.stringify(llamaJson),
    "tokenizer_config.json": JSON.stringify(config),
  });
  const cases: [Record<string, string>, string | undefined][] = [
    [files({ chat_template: "one" }), "one"],
    [files({ chat_template: null }), undefined],
    [
      files({ chat_template: [{ name: "tool", template: "t" }, { name: "default", template: "two" }] }),
      "two",
    ],
    [files({ chat_template: [{ name: "tool", template: "t" }] }), undefined],
    [{ ...files({ chat_template: "one" }), "chat_template.jinja": "three\n" }, "three\n"],
  ];
  for (const [given, expected] of cases) {
    await withFiles(given, async (dir) => assertEquals((await loadTokenizer(dir))!.chatTemplate, expected));
  }
});

Deno.test("createTokenizer() makes tokens special that only the config calls so", () => {
  const unmarked = { ...llamaJson, added_tokens: [] };
  assertEquals([...tokenizerOf(unmarked).specialIds], []);
  assertEquals(tokenizerOf(unmarked, { bos_token: "<s>", add_bos_token: false }).encode("<s>b"), [
    1,
    259,
    261,
  ]);
  const decoder = { "2": { content: "</s>", special: true }, "400": { content: "<end>", special: true } };
  const tokenizer = tokenizerOf(unmarked, {
    add_bos_token: false,
    eos_token: "</s>",
    pad_token: "nowhere",
    additional_special_tokens: ["<unk>", { content: "é" }],
    added_tokens_decoder: decoder,
  });
  assertEquals([...tokenizer.specialIds].toSorted((a, b) => a - b), [0, 2, 266, 400]);
  assertEquals(tokenizer.encode("<end></s>"), [400, 2]);
  const ordinary = { ...llamaJson, added_tokens: [{ id: 2, content: "</s>", special: false }] };
  assertEquals([...tokenizerOf(ordinary).specialIds], []);
  assertEquals([...tokenizerOf(ordinary, { eos_token: "</s>" }).specialIds], [2]);
  assertEquals([...tokenizerOf(ordinary, { added_tokens_decoder: decoder }).specialIds], [2, 400]);
  assertEquals(tokenizer.vocabSize, 401);
});

Deno.test("createTokenizer() fills in parts that older files leave out", () => {
  const tokenizer = tokenizerOf({
    model: { type: "BPE", vocab: { a: 0, b: 1, ab: 2 }, merges: ["a b"], ignore_merges: false },
  });
  assertEquals(tokenizer.encode("abba"), [2, 1, 0]);
  // What the vocabulary lacks is dropped.
  assertEquals(tokenizer.encode("axb"), [0, 1]);
  assertEquals(tokenizer.decode([2, 1]), "ab b");
});

Deno.test("encode() and decode() work for unigram, word piece and end-of-word tokenizers", () => {
  // Ids and texts by tokenizers 0.23.2 in Rust.
  const unigram = tokenizerOf(unigramJson);
  assertEquals(unigram.encode("a ab"), [6, 8]);
  assertEquals(unigram.decode([6, 8]), "a ab");
  assertEquals(unigram.encode("x"), [3, 0]);
  const wordPiece = tokenizerOf(wordPieceJson);
  assertEquals(wordPiece.encode("The cats sat.", { bos: false }), [3, 4, 5, 6, 7]);
  assertEquals(wordPiece.decode([3, 4, 5, 6, 7]), "the cats sat.");
  const endOfWord = tokenizerOf(endOfWordJson);
  assertEquals(endOfWord.encode("ab ab b"), [5, 5, 4]);
  assertEquals(endOfWord.decode([5, 5, 4]), "ab ab b");
});

Deno.test("decode() writes a whole invalid byte sequence as U+FFFD, as TextDecoder does", () => {
  const llama = tokenizerOf(llamaJson);
  // Byte b is token 3 + b; 260 is "a".
  assertEquals(llama.decode([260, 3 + 0xe2, 3 + 0x82, 260]), "a\ufffda");
  assertEquals(llama.decode([3 + 0xff, 3 + 0x80]), "\ufffd\ufffd");
  assertEquals(llama.decode([3 + 0xf0, 3 + 0x9f, 3 + 0x99, 3 + 0x82]), "🙂");
  // Two halves of a character with a special token between: it is left out before the bytes are joined.
  assertEquals(llama.decode([3 + 0xc3, 2, 3 + 0xa9], { skipSpecialTokens: true }), "é");
  assertEquals(llama.decode([3 + 0xc3, 2, 3 + 0xa9]), "\ufffd</s>\ufffd");
});

Deno.test("tokenizers without a decoder write spaces between tokens", () => {
  const tokenizer = tokenizerOf(tokenizerJson({
    model: { type: "WordPiece", unk_token: "?", vocab: { "?": 0, "red": 1, "fox": 2, ".": 3 } },
    pre_tokenizer: { type: "Whitespace" },
  }));
  assertEquals(tokenizer.decode(tokenizer.encode("red fox cat")), "red fox ?");
  assertEquals(tokenizer.decode(tokenizer.encode("red.")), "red .");
});
