// The examples about KV pruning run to their end with tiny sizes and write what they say they write.

import { assert, assertAlmostEquals, assertEquals, assertMatch } from "@std/assert";
import { join } from "@std/path";
import { forcedGreedy } from "../examples/forced_greedy.ts";
import { heatMaps } from "../examples/heat_map.ts";
import { median, noteAttention } from "../examples/note_attention.ts";
import { promptsWithNotes } from "../examples/notes_text.ts";
import { measureQuality, splitQuestion } from "../examples/quality_measures.ts";
import { csv, escapeXml, lineChart } from "../examples/svg.ts";
import { assertSvg, csvRows, run, runFor } from "./harness/examples.ts";
import { NOVEL_LLAMA } from "./harness/models.ts";
import {
  describeModel,
  forward,
  generate,
  KV_POLICIES,
  loadModel,
  openGpu,
  snapKv,
  streamingLlm,
  withKvPruning,
} from "../mod.ts";

Deno.test("csv() quotes what needs it, and leaves out what is missing", () => {
  const text = csv([["a", "b", "c"], ['say "no", twice', undefined, 1.5]]);
  assertEquals(text, 'a,b,c\n"say ""no"", twice",,1.5\n');
  assertEquals(csvRows(text)[1], ['say "no", twice', "", "1.5"]);
});

Deno.test("lineChart() is valid SVG whatever the names, with gaps and with one point", () => {
  const axes = { title: "a < b & c", xTitle: "x", yTitle: '"y"', xText: String, yText: String };
  assertSvg(lineChart({ ...axes, xTicks: [1, 2] }, [{ name: "<&>", points: [[1, 3], [2, undefined]] }]));
  assertSvg(lineChart({ ...axes, xTicks: [1] }, [{ name: "none", points: [[1, undefined]], faint: true }]));
  assertEquals(escapeXml("a\u0000<b\n"), "a\ufffd&lt;b\n");
});

Deno.test("heatMaps() is valid SVG, with maps and shares that are missing", () => {
  const map = [[0, 0.5], [1, undefined]];
  const names = {
    title: "a < b",
    note: "&",
    columns: ["1", "2"],
    mapRows: ["x", "y"],
    mapColumns: ["0", "1"],
  };
  const picture = heatMaps({ ...names, rows: [{ name: "<&>", maps: [map, undefined] }] });
  assertSvg(picture);
  for (const color of ["rgb(122,18,40)", "rgb(250,210,120)", "rgb(120,200,130)"]) {
    // Once in the map, once in the scale below.
    assertEquals(picture.split(`fill="${color}"`).length - 1, 2, color);
  }
});

Deno.test("splitQuestion() parts a prompt before its last paragraph", () => {
  assertEquals(splitQuestion("\n\na\n\nb\n\nc"), { notes: "\n\na\n\nb", question: "\n\nc" });
  assertEquals(splitQuestion("\n\nc"), undefined);
});

Deno.test("noteAttention() ranks the note among the keys and sums what it gets", () => {
  // Ten rows; the question begins at token 8, so that row 7 is the newest fifth before it.
  const map = new Float32Array(100);
  map.set([0.1, 0.2, 0.05, 0.3, 0.05, 0.05, 0.05, 0.1, 0.05, 0.05], 90);
  map.set([0.5, 0.05, 0.05, 0.1, 0.1, 0.1, 0.05, 0.05], 70);
  const heads = [
    Float32Array.of(0.4, 0.1, 0, 0.1, 0, 0, 0, 0, 0.2, 0.2),
    Float32Array.of(0, 0.2, 0.5, 0.3, 0, 0, 0, 0, 0, 0),
  ];
  const maps = { layers: [map], lastRow: [heads], hidden: new Float32Array() };
  const [layer] = noteAttention(maps, { first: 1, end: 3 }, 8);
  assertEquals([layer.keys, layer.noteTokens], [10, 2]);
  assertEquals([layer.answer.rank, layer.bestHead.rank, layer.recent.rank], [2, 1, 5]);
  assertAlmostEquals(layer.answer.mass, 0.25, 1e-6);
  assertAlmostEquals(layer.bestHead.mass, 0.7, 1e-6);
  assertAlmostEquals(layer.recent.mass, 0.1, 1e-6);
  assertEquals([median([3, 1, 2]), median([4, 1, 2, 3])], [2, 2.5]);
});

Deno.test("forcedGreedy() tells the likeliest token after other tokens than its own", async () => {
  using gpu = await openGpu();
  using model = await loadModel(gpu, NOVEL_LLAMA);
  const ids = model.tokenizer!.encode(
    "The rain had not stopped for three days, and the road was under water.",
  );
  const [prompt, tokens] = [ids.slice(0, 6), ids.slice(6)];
  const [chosen] = await forcedGreedy(model, [{ prompt, tokens }]);
  const { logits } = await forward(model, ids);
  const width = model.config.vocabularySize;
  const best = tokens.map((_, i) => {
    const row = logits.subarray((5 + i) * width, (6 + i) * width);
    return row.indexOf(Math.max(...row));
  });
  assertEquals(chosen, best);
  assert(chosen.some((id, i) => id !== tokens[i]), "The text itself is likeliest everywhere");
  // A pruned model's own tokens are its likeliest ones, in more steps than are submitted at once.
  const pruned = withKvPruning(streamingLlm({ keep: 0.5 }))(model);
  const long = [...ids, ...ids, ...ids];
  const options = { maxTokens: 70, temperature: 0, ignoreEos: true };
  const own = await generate(pruned, long, options).record;
  assertEquals(await forcedGreedy(pruned, [{ prompt: long, tokens: own.ids }]), [[...own.ids]]);
});

Deno.test("measureQuality() asks in a second turn what stands in the first, pruned without the question", async () => {
  using gpu = await openGpu();
  using model = await loadModel(gpu, NOVEL_LLAMA);
  const countTokens = (text: string) => model.tokenizer!.encode(text).length;
  const prompts = promptsWithNotes({ count: 3, tokens: 160, seed: 1, countTokens });
  // One whose notes end in the middle of a sentence, where a new paragraph is not what the model would begin.
  const cut = prompts[0].prompt.lastIndexOf("\n\n");
  const broken = `${prompts[0].prompt.slice(0, cut)}\n\nThe rain had not${prompts[0].prompt.slice(cut)}`;
  prompts[0] = { ...prompts[0], prompt: broken };
  const window = model.tokenizer!.encode(prompts[0].prompt).slice(0, 48);
  const task = {
    batches: [prompts],
    windows: [window],
    promptTokens: 32,
    greedy: [{ prompt: window.slice(0, 32), tokens: window.slice(32) }],
    sessions: 2,
  };
  const full = await measureQuality(model, task);
  assert("texts" in full.inside && "texts" in full.afterwards);
  assertEquals(full.afterwards, full.inside);
  assertEquals([full.inside.right.every(Boolean), full.inside.held], [true, 1]);
  const pruned = await measureQuality(withKvPruning(snapKv({ keep: 0.3 }))(model), task);
  assert("texts" in pruned.inside && "texts" in pruned.afterwards);
  const found = ({ right }: { readonly right: readonly boolean[] }) => right.filter(Boolean).length;
  // The newest rows choose: with the question among them they keep its note.
  assert(
    found(pruned.inside) > found(pruned.afterwards),
    `${pruned.inside.texts} ${pruned.afterwards.texts}`,
  );
  for (const { held } of [pruned.inside, pruned.afterwards]) assert(held > 0.28 && held < 0.36, `${held}`);
  assertEquals((await measureQuality(model, task, true)).agreement, { reason: "not measured" });
});

Deno.test("promptsWithNotes() makes prompts of their length, whose answers stand in one note", async () => {
  using model = await describeModel(NOVEL_LLAMA);
  const countTokens = (text: string) => model.tokenizer!.encode(text).length;
  for (const tokens of [256, 1900]) {
    const prompts = promptsWithNotes({ count: 5, tokens, seed: 3, countTokens });
    assertEquals(prompts, promptsWithNotes({ count: 5, tokens, seed: 3, countTokens }));
    assertEquals(prompts.map(({ depth }) => depth), [0, 0.25, 0.5, 0.75, 1]);
    for (const { prompt, answer } of prompts) {
      const length = countTokens(prompt);
      assert(Math.abs(length - tokens) <= 8, `${length} tokens for ${tokens}`);
      const asked = prompt.slice(prompt.lastIndexOf("Answer: here is ") + "Answer: here is ".length);
      const notes = prompt.split("\n\n").filter((line) => line.startsWith(`Note: here is ${asked}`));
      assertEquals(notes, [`Note: here is ${asked}${answer}.`]);
      assertEquals(countTokens(answer), 2);
    }
    const position = ({ prompt, answer }: typeof prompts[number]) =>
      prompt.split("\n\n").filter((line) => line.startsWith("Note:")).findIndex((line) =>
        line.includes(answer)
      );
    const notes = prompts[0].prompt.split("\n\nNote:").length - 1;
    assertEquals(
      prompts.map(position),
      [0, 0.25, 0.5, 0.75, 1].map((depth) => Math.round(depth * (notes - 1))),
    );
  }
});

Deno.test("kv_quality.ts prints tables and writes them with pictures", async () => {
  const sizes = ["--limit", "1", "--tokens", "128", "--prompt-tokens", "64", "--scored", "40"];
  const { stdout, files } = await runFor(
    "kv_quality.ts",
    ...["--policies", "snap-kv,streaming-llm", "--keeps", "1,0.3", "--ablations", "none", ...sizes],
  );
  assertEquals([...files.keys()].sort(), [
    "ablations.csv",
    "afterwards.svg",
    "agreement.svg",
    "answers.csv",
    "attention.csv",
    "attention.svg",
    "heat_afterwards.svg",
    "heat_inside.svg",
    "loss.svg",
    "notes.svg",
    "quality.csv",
  ]);
  for (const [name, text] of files) if (name.endsWith(".svg")) assertSvg(text);
  const [heads, full, ...rows] = csvRows(files.get("quality.csv"));
  assertEquals(heads.slice(2, 11), [
    ...["prompts", "inside", "inside_held", "afterwards", "afterwards_held"],
    ...["scored_tokens", "loss", "greedy_tokens", "agreement"],
  ]);
  assertEquals(full[heads.indexOf("agreement")], "1");
  assertEquals(rows.map(([policy, keep]) => `${policy} ${keep}`), [
    "snap-kv 1",
    "snap-kv 0.3",
    "streaming-llm 1",
    "streaming-llm 0.3",
  ]);
  const loss = heads.indexOf("loss");
  for (const row of [rows[0], rows[2]]) {
    assertEquals(row.slice(2, loss), full.slice(2, loss), "keep 1 changes nothing");
    // What is decoded with a pruned cache is scored in one pass without.
    assertAlmostEquals(Number(row[loss]), Number(full[loss]), 1e-4);
  }
  // SnapKV cannot: 39 new tokens and its window are more than 0.3 of 104.
  assertEquals(rows[1][loss], "");
  assertMatch(rows[1][heads.indexOf("loss_refused")], /^keep must be from /);
  assertMatch(stdout, /^snap-kv +\d+\.\d{3} +–$/m);
  assertMatch(stdout, /^– snap-kv, keep 0\.3, loss: keep must be from /m);
  assert(Number(rows[3][loss]) > 0);
  const agreement = Number(rows[3][heads.indexOf("agreement")]);
  assert(agreement > 0 && agreement <= 1);
  assertEquals(csvRows(files.get("answers.csv")).length, 1 + 2 * 5);
  assertEquals(csvRows(files.get("attention.csv")).length, 1 + 6);
  assertMatch(stdout, /^layer 5 +\d+ +\d+\.\d %/m);
});

Deno.test("kv_quality.ts compares settings at one budget and says which were put in their place", async () => {
  const sizes = ["--limit", "1", "--tokens", "64", "--prompt-tokens", "256", "--scored", "2"];
  const { stdout, files } = await runFor(
    "kv_quality.ts",
    ...["--policies", "random", "--keeps", "0.45", "--ablations", "0.6", "--attention", "0", ...sizes],
  );
  const [heads, ...rows] = csvRows(files.get("ablations.csv"));
  assertEquals(heads.slice(0, 5), ["comparison", "setting", "keep", "held", "in_effect"]);
  assertEquals(rows.filter(([name]) => name === "where to shrink").length, 3);
  assertEquals(rows.filter(([name]) => name === "recent ratio").length, 6);
  // Six layers cannot keep 0.6 of the cache by the cosine.
  const cosine = rows.find(([, setting]) => setting === "less in shallow layers")!;
  assertEquals(cosine[3], "false");
  assertMatch(cosine[4], /geometric/);
  assertMatch(stdout, /^\* The budget cannot be met/m);
});

Deno.test("kv_quality.ts keeps cells, and takes those that fit what is asked for", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const sizes = [
      "--limit",
      "1",
      "--tokens",
      "64",
      "--prompt-tokens",
      "32",
      "--scored",
      "2",
      "--greedy",
      "2",
    ];
    const settings = ["--policies", "random", "--keeps", "0.5", "--ablations", "none", "--attention", "0"];
    const measured = (...more: string[]) =>
      run("kv_quality.ts", ...settings, ...sizes, "--cells", folder, ...more);
    const first = await measured();
    assertEquals(first.code, 0, first.stderr);
    const names = Array.from(Deno.readDirSync(folder), ({ name }) => name);
    assertEquals(names.map((name) => name.replace(/_[0-9a-f]{12}\.json$/, "")).sort(), [
      "full",
      "random_0.5",
    ]);
    const cell = join(folder, names.find((name) => name.startsWith("random"))!);
    const quality = JSON.parse(Deno.readTextFileSync(cell));
    Deno.writeTextFileSync(cell, JSON.stringify({ ...quality, loss: { windows: [12.345] } }));
    assertMatch((await measured()).stdout, /^random +12\.345$/m);
    // Other sizes are another measurement.
    const other = await measured("--seed", "2");
    assertEquals([other.code, /12\.345/.test(other.stdout)], [0, false]);
    assertEquals([...Deno.readDirSync(folder)].length, 4);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("kv_quality.ts takes prompts of a file", async () => {
  const file = await Deno.makeTempFile();
  try {
    const line = {
      prompt: "\n\nNote: here is Jane Castle's silver key.\n\nAnswer: here is Jane Castle's",
      tokens: 24,
    };
    await Deno.writeTextFile(file, `${JSON.stringify({ ...line, answer: " silver key", depth: 0 })}\n`);
    const sizes = ["--prompt-tokens", "16", "--scored", "2", "--policies", "random", "--keeps", "1"];
    const args = ["--needles", file, "--ablations", "none", ...sizes];
    const { files } = await runFor("kv_quality.ts", ...args);
    assertEquals(csvRows(files.get("answers.csv"))[1].slice(2), [
      "inside",
      "24",
      "0",
      " silver key",
      " silver key",
      "1",
    ]);
    const missing = await run("kv_quality.ts", ...args, "--tokens", "512");
    assertEquals([missing.code, missing.stdout], [1, ""]);
    assertMatch(missing.stderr, /has prompts of 24 tokens, and none of 512\n$/);
    await Deno.writeTextFile(file, "{}\n");
    assertMatch(
      (await run("kv_quality.ts", ...args)).stderr,
      /line 1 must be JSON with prompt, answer and tokens/,
    );
  } finally {
    await Deno.remove(file);
  }
});

Deno.test("pyramid.ts draws every token of the prompt in every layer", async () => {
  const prompt = 'The captain looked at his watch, and then at the sea, and <nobody> said "no" & went.';
  const { stdout, files } = await runFor(
    "pyramid.ts",
    "--prompt",
    prompt,
    "--prune",
    "streaming-llm:keep=0.5,sinks=2",
  );
  const paragraphs = stdout.split("\n\n").slice(1, -1);
  assertEquals(paragraphs.length, 6);
  const kept = /^layer 5, (\d+) of (\d+) tokens\n/.exec(paragraphs[0])!;
  assert(Number(kept[1]) < Number(kept[2]));
  for (const paragraph of paragraphs) {
    const text = paragraph.slice(paragraph.indexOf("\n") + 1);
    // Of what was dropped there are dots in place of the letters.
    assertEquals(text.replace(/[^\s]/g, "·"), prompt.replace(/[^\s]/g, "·"));
    assert(text.startsWith("The captain ·····") && text.endsWith(" & went."), text);
  }
  assertEquals([...files.keys()], ["pyramid.svg"]);
  const picture = files.get("pyramid.svg");
  assertSvg(picture);
  assertMatch(picture!, /captain/);
  assertMatch(picture!, new RegExp(`>${kept[1]} of ${kept[2]}<`));
});

Deno.test("attention_consistency.ts prints three tables and writes them with pictures", async () => {
  const { stdout, files } = await runFor(
    "attention_consistency.ts",
    ...["--prompt-tokens", "64", "--scored", "2", "--shares", "1,0.25"],
  );
  assertEquals([...files.keys()].sort(), [
    "agreement.csv",
    "agreement.svg",
    "keys.csv",
    "keys.svg",
    "one_layer.csv",
    "one_layer.svg",
  ]);
  for (const name of ["agreement.svg", "keys.svg", "one_layer.svg"]) assertSvg(files.get(name));
  const [heads, ...oneLayer] = csvRows(files.get("one_layer.csv"));
  assertEquals(heads, ["layer", "keep", "loss_more"]);
  assertEquals(oneLayer.length, 12);
  // What is decoded with a pruned cache is scored in one pass without.
  for (const [, keep, more] of oneLayer) if (keep === "1") assertAlmostEquals(Number(more), 0, 1e-4);
  assert(oneLayer.some(([, , more]) => Number(more) !== 0));
  const keys = csvRows(files.get("keys.csv")).slice(1);
  assertEquals(keys.length, 6);
  for (const [, count, share] of keys) assert(Number(count) >= 1 && Number(share) > 0 && Number(share) <= 1);
  const agreements = csvRows(files.get("agreement.csv")).slice(1);
  assertEquals(agreements.length, 18);
  for (const row of agreements) {
    for (const value of row.slice(2)) assert(Number(value) >= 0 && Number(value) <= 1 + 1e-6, row.join());
  }
  assertMatch(stdout, /^layer 5 +[+−]0\.0000 +[+−]\d\.\d{4}$/m);
});

Deno.test("the examples tell what they take, and what is wrong with what they are given", async () => {
  for (const name of ["kv_quality.ts", "pyramid.ts", "attention_consistency.ts"]) {
    const help = await run(name, "--help");
    assertEquals([help.code, help.stderr], [0, ""]);
    assertMatch(help.stdout, new RegExp(`^deno run -A examples/${name.replace(".", "\\.")} \\[options\\]\n`));
    const wrong = await run(name, "--nothing", "1");
    assertEquals([wrong.code, wrong.stdout], [1, ""]);
    assertMatch(wrong.stderr, /^There is no option --nothing: the options are --model, .*\n$/);
  }
  const policy = await run("kv_quality.ts", "--policies", "snapkv");
  assertEquals(
    policy.stderr,
    `There is no policy "snapkv": the policies are ${Object.keys(KV_POLICIES).join(", ")}\n`,
  );
  assertEquals(
    (await run("kv_quality.ts", "--keeps", "2")).stderr,
    '--keeps takes numbers from 0.01 to 1: received "2"\n',
  );
  assertMatch(
    (await run("pyramid.ts", "--prune", "nothing")).stderr,
    /^--prune nothing: There is no policy "nothing"/,
  );
});
