// How many steps are submitted at once never changes a bit: not of a run, and not of what a session has in its cache
// after a run that ended in the middle of a submit.

import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { generate, type GenerateOptions, type GenerateRecord, session } from "../../lib/generate/mod.ts";
import type { Model } from "../../lib/models/mod.ts";
import { sharedGpu } from "../harness/kernel_case.ts";
import { essence, novelLlama, watch } from "../harness/models.ts";

const gpu = await sharedGpu();
const PROMPT = "The moor was dark, and the wind";
const GREEDY: GenerateOptions = { temperature: 0 };
const SAMPLED: GenerateOptions = { temperature: 0.9, topP: 0.95, seed: 5 };
const EDITED: GenerateOptions = {
  ...SAMPLED,
  topK: 50,
  repetitionPenalty: 1.2,
  presencePenalty: 0.3,
  frequencyPenalty: 0.2,
  logitBias: { 14: 1.5 },
};

const RUNS = [
  { name: "f32, greedy", dtype: "f32", sampling: GREEDY },
  { name: "f32, sampled", dtype: "f32", sampling: SAMPLED },
  { name: "f16, with penalties", dtype: "f16", sampling: EDITED },
] as const;

for (const { name, dtype, sampling } of RUNS) {
  Deno.test({
    name: `generate() in ${name}, gives the same bits whatever the run-ahead`,
    ignore: dtype === "f16" && !gpu.features.f16,
    async fn(): Promise<void> {
      const model = await novelLlama(dtype);
      const options = { ...sampling, maxTokens: 45, logprobs: 3, ignoreEos: true };
      const expected = essence(await generate(model, PROMPT, { ...options, runAhead: 1 }).record);
      assertEquals(expected.ids!.length, 45);
      for (const runAhead of [8, 64, undefined]) {
        const run = { ...options, ...(runAhead ? { runAhead } : {}) };
        const alone = await generate(model, PROMPT, run).record;
        assertEquals(essence(alone), expected, `run-ahead ${runAhead}`);
      }
      const watched = await watch(generate(model, PROMPT, options));
      assertEquals(essence(watched.record), expected, "watched");
    },
  });
}

/** A way in which a first turn ends. */
interface Ending {
  readonly name: string;
  readonly first: GenerateOptions;
  /** Run-aheads of the first turn that are tried. */
  readonly runAheads: readonly (number | undefined)[];
  /** Ended from outside after this many tokens were seen. */
  readonly seen?: { readonly tokens: number; readonly by: "abort" | "break" };
}

for (const { name, dtype, sampling } of RUNS.filter(({ sampling }) => sampling !== SAMPLED)) {
  Deno.test({
    name: `session() in ${name}, has the same second turn whatever the run-ahead of the first`,
    ignore: dtype === "f16" && !gpu.features.f16,
    async fn(): Promise<void> {
      const model = await novelLlama(dtype);
      const options = { ...sampling, maxTokens: 40, logprobs: 2, ignoreEos: true };
      const free = await generate(model, PROMPT, { ...options, runAhead: 1 }).record;
      // The 13th token is in the middle of any submit of 8 or more.
      const place = 12;
      const endings: Ending[] = [
        {
          name: "stop string",
          first: { stop: model.tokenizer!.decode(free.ids.slice(place - 1, place + 1)) },
          runAheads: [8, 64, undefined],
        },
        { name: "stop id", first: { stopIds: [free.ids[place]] }, runAheads: [8, 64] },
        { name: "length", first: { maxTokens: 13 }, runAheads: [8] },
        // Long enough that a fast device is not at its end before the abort is heard.
        {
          name: "abort",
          first: { maxTokens: 400 },
          runAheads: [8, undefined],
          seen: { tokens: 11, by: "abort" },
        },
        { name: "break", first: { maxTokens: 400 }, runAheads: [8], seen: { tokens: 11, by: "break" } },
      ];
      for (const ending of endings) {
        const turns = (runAhead: number | undefined) =>
          twoTurns(model, withRunAhead({ ...options, ...ending.first }, runAhead), options, ending.seen);
        const expected = ending.seen ? undefined : await turns(1);
        if (expected) assert(expected[0].ids!.length <= 13, `${ending.name}: ${expected[0].ids!.length}`);
        for (const runAhead of ending.runAheads) {
          const label = `${ending.name}, run-ahead ${runAhead}`;
          const actual = await turns(runAhead);
          if (expected) assertEquals(actual, expected, label);
          else await assertAsIfCut(model, actual, options, label);
        }
      }
    },
  });
}

type Essence = Partial<GenerateRecord>;

function withRunAhead(options: GenerateOptions, runAhead: number | undefined): GenerateOptions {
  return { ...options, ...(runAhead ? { runAhead } : {}) };
}

/** Where an abort takes effect depends on the clock; what follows must be as after that many tokens without one. */
async function assertAsIfCut(
  model: Model,
  [aborted, second]: [Essence, Essence],
  options: GenerateOptions,
  label: string,
): Promise<void> {
  const { length } = aborted.ids!;
  assertEquals(aborted.finishReason, "aborted", label);
  assert(length >= 11 && length < 400, `${label}: ended after ${length}`);
  const cut = { ...options, maxTokens: length, runAhead: 1 };
  const [first, expected] = await twoTurns(model, cut, options);
  assertEquals([first.ids, first.text, first.logprobs], [aborted.ids, aborted.text, aborted.logprobs], label);
  assertEquals(second, expected, label);
}

/** Two turns of a session; the first may be ended from outside. */
async function twoTurns(
  model: Model,
  first: GenerateOptions,
  second: GenerateOptions,
  seen?: Ending["seen"],
): Promise<[Essence, Essence]> {
  using turns = session(model, { cacheTokens: 128 });
  const abort = new AbortController();
  const run = turns.generate(PROMPT, { ...first, signal: abort.signal });
  let tokens = 0;
  if (seen) {
    for await (const { ids } of run) {
      tokens += ids.length;
      if (tokens < seen.tokens) continue;
      if (seen.by === "break") break;
      abort.abort();
    }
  }
  const ended = essence(await run.record);
  const { length } = turns.ids;
  assertEquals(turns.ids, [...ended.promptIds!, ...ended.ids!]);
  const next = essence(await turns.generate(" And then", { ...second, maxTokens: 9 }).record);
  assertEquals(next.ids!.length, 9);
  assertNotEquals(next.ids, ended.ids!.slice(0, 9));
  assertEquals(turns.ids.slice(length), [...next.promptIds!, ...next.ids!]);
  return [ended, next];
}

Deno.test("session() goes on to the same bits after a stop string that the first token completes", async () => {
  const model = await novelLlama("f32");
  const options = { ...GREEDY, maxTokens: 24, logprobs: 1, ignoreEos: true };
  const [first] = (await generate(model, PROMPT, options).record).ids;
  const stop = model.tokenizer!.decode([first]).trim();
  const [ended, expected] = await twoTurns(model, { ...options, stop, runAhead: 1 }, options);
  assertEquals([ended.ids, ended.finishReason], [[first], "stop"]);
  const [, second] = await twoTurns(model, { ...options, stop, runAhead: 64 }, options);
  assertEquals(second, expected);
});
